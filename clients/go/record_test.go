package dwcp

import (
	"encoding/json"
	"strings"
	"testing"
)

const whole = `{"timestamp":1795000500,"node_id":"a","peer_id":"b","rtt_ms":20}`

// with is the whole record with something put in the place of something else.
func with(old, new string) string { return strings.Replace(whole, old, new, 1) }

// Names match letter by letter: what encoding/json would match as well is a further field, which is ignored.
func TestNamesMatchLetterByLetter(t *testing.T) {
	for _, content := range []string{
		whole, with("20}", `20,"RTT_MS":900,"Timestamp":1,"node_Id":[]}`), with("{", `{"Rtt_ms":900,`), with("20}", `20,"rtt_m\u017f":900}`),
		with("rtt_ms", `rtt\u005fms`), with("20}", `1e400,"rtt_ms":{},"rtt_ms":20}`), with("20}", `20,"x":[{"rtt_ms":"x"},1e400]}`),
		" \r\n" + whole + "\t",
	} {
		sample, err := DecodeRecord([]byte(content))
		if err != nil || *sample.RTTMs != 20 || sample.Timestamp != 1795000500 || sample.NodeID != "a" || sample.PeerID != "b" {
			t.Errorf("%s: %v %+v", content, err, sample)
		}
	}
}

// What the daemon refuses, the client refuses, with the reason.
func TestRecordsThatTheDaemonRefuses(t *testing.T) {
	for content, want := range map[string]string{
		"":                                            "unexpected end of JSON",
		"null":                                        "a JSON object is needed, not a null",
		`"` + "x" + `"`:                               "a JSON object is needed, not a string",
		"[" + whole + "]":                             "a JSON object is needed, not a array",
		whole + whole:                                 "after top-level value",
		"\xef\xbb\xbf" + whole:                        "invalid character",
		with("timestamp", "Timestamp"):                "timestamp is missing",
		with("rtt_ms", "RTT_MS"):                      "none of throughput_mbps",
		with("node_id", "NODE_ID"):                    "node_id is missing or empty",
		with(`"b"`, `""`):                             "peer_id is missing or empty",
		with(`"b"`, "null"):                           "peer_id is missing or empty",
		with("20}", `20,"x":"`+"\xff"+`"}`):           "it is not UTF-8",
		with("a", "\xed\xa0\x80"):                     "it is not UTF-8",
		with(`"a"`, `"\ud800"`):                       "half of a surrogate pair",
		with(`"a"`, `"\ud800\u0041"`):                 "half of a surrogate pair",
		with(`"a"`, `"\ude00\ud83d"`):                 "half of a surrogate pair",
		with("20}", `20,"\udfff":1}`):                 "half of a surrogate pair",
		with(`"a"`, "1e255"):                          "longer than 256 characters",
		with(`"a"`, strings.Repeat("9", 400)):         "that a double can hold",
		with(`"a"`, `"`+strings.Repeat("ü", 257)+`"`): "longer than 256 characters",
		with("20}", `20,"x":`+strings.Repeat("[", 400)+strings.Repeat("]", 400)+"}"): "nested deeper than 400",
		with("20}", `20,"x":"`+strings.Repeat("x", MaxRecordBytes)+`"}`):             "longer than 1048576 bytes",
		with("20}", `20,"rtt_ms":"20"}`):                                             "rtt_ms is a JSON string",
		with("1795000500", `"1795000500"`):                                           "no RFC 3339 time",
	} {
		if sample, err := DecodeRecord([]byte(content)); err == nil || !strings.Contains(err.Error(), want) || sample != (NetworkSample{}) {
			t.Errorf("%.80q gives %v, not %q", content, err, want)
		}
	}
}

// What looks like it is a text as any other.
func TestTextsThatOnlyLookWrong(t *testing.T) {
	for written, want := range map[string]string{
		`"\\ud800"`: `\ud800`, `"\ud83d\ude00"`: "😀", `"\ufffd"`: "\ufffd", `"` + "\ufffd" + `"`: "\ufffd", `"\u0000"`: "\x00", `"\/"`: "/",
		`"` + strings.Repeat("[", 256) + `"`: strings.Repeat("[", 256), `7.0`: "7", `-0.0`: "0", `1.5`: "1.5", `18446744073709551616`: "18446744073709551616",
	} {
		sample, err := DecodeRecord([]byte(with(`"a"`, written)))
		if err != nil || sample.NodeID != want {
			t.Errorf("%s is %q, not %q: %v", written, sample.NodeID, want, err)
		}
	}
	if _, err := DecodeRecord([]byte(with("20}", `20,"x":"`+strings.Repeat("[{", 500)+`"}`))); err != nil {
		t.Error(err)
	}
}

// RFC 3339 as the daemon reads it, and nothing that time.Parse reads beside it; seconds are the nearest double in any year.
func TestTimesAsTheDaemonReadsThem(t *testing.T) {
	for written, want := range map[string]float64{
		"2026-01-05T00:00:00-00:00": 1767571200, "2026-01-05T00:00:00+0530": 1767551400, "2026-01-05t00:00:00.1234565z": 1767571200.123457,
		"2026-01-05T00:00:00.12345649999999999999Z": 1767571200.123456, "5000-01-05T00:00:00.1234565Z": 95617929600.12346,
		"2026-01-05 23:59:59.9999999Z": 1767657600,
	} {
		if sample, err := DecodeRecord([]byte(with("1795000500", `"`+written+`"`))); err != nil || sample.Timestamp != want {
			t.Errorf("%s is %v, not %v: %v", written, sample.Timestamp, want, err)
		}
	}
	for _, written := range []string{
		"2026-01-05T00:00:00,5Z", "2026-01-05T00:00:00.Z", "2026-01-05T00:00:60Z", "2026-01-05T24:00:00Z", "2026-01-05T00:00:00+24:00",
		"2026-01-05T00:00:00+05", "2026-02-29T00:00:00Z", "2026-01-05T00:00Z", " 2026-01-05T00:00:00Z", "2026-01-05T00:00:00Z ", "2026-01-05_00:00:00Z",
	} {
		if _, err := DecodeRecord([]byte(with("1795000500", `"`+written+`"`))); err == nil {
			t.Errorf("%s is a time", written)
		}
	}
}

// -0 is 0: its sign would be a bit that the daemon does not have.
func TestNothingLessThanNothing(t *testing.T) {
	for _, zero := range []string{"-0", "-0.0", "-0e5", "-1e-400", "0"} {
		sample, err := DecodeRecord([]byte(with("20}", zero+"}")))
		if err != nil || 1 / *sample.RTTMs < 0 {
			t.Errorf("%s is %v: %v", zero, *sample.RTTMs, err)
		}
	}
}

// A service's rows need no names of the link's ends, but are records in all else.
func TestRowsOfAService(t *testing.T) {
	var rows []NetworkSample
	if err := json.Unmarshal([]byte(`[{"timestamp":1795000500,"rtt_ms":20},{"timestamp":1795000560,"RTT_MS":20}]`), &rows); err != nil {
		t.Fatal(err)
	}
	if rows[0].Problem() != "" || !strings.HasPrefix(rows[1].Problem(), "none of throughput_mbps") {
		t.Errorf("%q %q", rows[0].Problem(), rows[1].Problem())
	}
	if json.Unmarshal([]byte(`[null]`), &rows) == nil {
		t.Error("null is a row")
	}
}
