package dwcp

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
)

func decoded(t *testing.T, content string) (sample NetworkSample) {
	t.Helper()
	if err := json.Unmarshal([]byte(content), &sample); err != nil {
		t.Fatalf("%s: %v", content, err)
	}
	return sample
}

// A timestamp is a number or an RFC 3339 text of any zone; both come to the same seconds, to the microsecond.
func TestTimestamps(t *testing.T) {
	for content, want := range map[string]float64{
		`1795000500`:                          1795000500,
		`1795000500.25`:                       1795000500.25,
		`1.7950005e9`:                         1795000500,
		`"2026-11-18T11:15:00Z"`:              1795000500,
		`"2026-11-18t12:15:00.25+01:00"`:      1795000500.25,
		`"2026-11-18 06:45:00.1234567-04:30"`: 1795000500.123457,
		`"2026-11-18T11:15:00.000001z"`:       1795000500.000001,
		`null`:                                0,
	} {
		if got := decoded(t, `{"timestamp":`+content+`}`).Timestamp; got != want {
			t.Errorf("%s is %v, not %v", content, got, want)
		}
	}
	for content, want := range map[string]string{
		`"yesterday"`:           "which is no RFC 3339 time with a zone",
		`"2026-11-18T11:15:00"`: "which is no RFC 3339 time with a zone",
		`true`:                  "UTC seconds or an RFC 3339 text is needed",
		`[1]`:                   "UTC seconds or an RFC 3339 text is needed",
	} {
		var sample NetworkSample
		if err := json.Unmarshal([]byte(`{"timestamp":`+content+`}`), &sample); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s gives %v", content, err)
		}
	}
}

// A number in the place of a text counts as the text that Python writes for it, as the daemon reads it.
func TestNumbersAsTexts(t *testing.T) {
	for content, want := range map[string]string{
		`"eu"`: "eu", `""`: "", `null`: "", `1`: "1", `1.0`: "1", `-0`: "0", `1e2`: "100", `1.5`: "1.5", `0.00001`: "1e-05",
		`123456789.25`: "123456789.25", `1e20`: "100000000000000000000", `9007199254740993`: "9007199254740993",
	} {
		if got := decoded(t, `{"region":`+content+`}`).Region; got != want {
			t.Errorf("%s is %q, not %q", content, got, want)
		}
	}
}

// What is no telemetry record is named with its field, and leaves the sample as it was.
func TestRecordsThatAreNone(t *testing.T) {
	for content, want := range map[string]string{
		`{"rtt_ms":"20"}`:      "rtt_ms is a JSON string, a number is needed",
		`{"packet_loss":true}`: "packet_loss is a JSON bool, a number is needed",
		`{"rtt_ms":1e400}`:     "rtt_ms is a JSON number 1e400, a number is needed",
		`{"region":{}}`:        "{} stands where a text is needed",
		`{"region":true}`:      "true stands where a text is needed",
		`[]`:                   "a JSON object is needed, not a array",
		`7`:                    "a JSON object is needed, not a number",
		`{"rtt_ms":NaN}`:       "invalid character",
		`{"rtt_ms":1`:          "unexpected end",
	} {
		sample := NetworkSample{Region: "kept"}
		if err := json.Unmarshal([]byte(content), &sample); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s gives %v, not %q", content, err, want)
		}
		if sample.Region != "kept" {
			t.Errorf("%s has changed the sample", content)
		}
	}
}

// Ranges are the daemon's; each problem names field, value and what is allowed.
func TestProblems(t *testing.T) {
	good := NetworkSample{Timestamp: 1795000500, RTTMs: Float(20)}
	if problem := good.Problem(); problem != "" {
		t.Fatal(problem)
	}
	nan, infinite := math.NaN(), math.Inf(1)
	for want, change := range map[string]func(*NetworkSample){
		"timestamp is missing": func(s *NetworkSample) { s.Timestamp = 0 },
		"timestamp is 1.7950005e+12: that looks like milliseconds": func(s *NetworkSample) { s.Timestamp *= 1000 },
		"timestamp is 86400, allowed 631152000 (1990)":             func(s *NetworkSample) { s.Timestamp = 86400 },
		"timestamp is +Inf":                  func(s *NetworkSample) { s.Timestamp = infinite },
		"rtt_ms is -1, allowed 0 to 3.4e+38": func(s *NetworkSample) { s.RTTMs = Float(-1) },
		"rtt_ms is +Inf":                     func(s *NetworkSample) { s.RTTMs = &infinite },
		"rtt_ms is 1e+39":                    func(s *NetworkSample) { s.RTTMs = Float(1e39) },
		"packet_loss is 1.5, allowed 0 to 1": func(s *NetworkSample) { s.PacketLoss = Float(1.5) },
		"latency_ms is -3":                   func(s *NetworkSample) { s.RTTMs, s.LatencyMs = nil, Float(-3) },
		"day_of_week is 7, allowed 0 to 6":   func(s *NetworkSample) { s.DayOfWeek = Float(7) },
		"time_of_day is 24.5":                func(s *NetworkSample) { s.TimeOfDay = Float(24.5) },
		"none of throughput_mbps, rtt_ms, packet_loss, jitter_ms is present": func(s *NetworkSample) { s.RTTMs = &nan },
		"az is longer than 256 characters":                                   func(s *NetworkSample) { s.AZ = strings.Repeat("ü", 257) },
	} {
		sample := good
		change(&sample)
		if problem := sample.Problem(); !strings.HasPrefix(problem, want) {
			t.Errorf("%q instead of %q", problem, want)
		}
	}
}

// An older name counts only where the new one is missing, and the last instant of a day stays in it.
func TestOlderNamesAndTheLastHour(t *testing.T) {
	sample := decoded(t, `{"timestamp":1795000500,"bandwidth_mbps":7,"latency_ms":9,"rtt_ms":8,"time_of_day":24}`)
	r, problem := sample.row()
	if problem != "" || r.numeric[0] != 7 || r.numeric[1] != 8 {
		t.Errorf("%v %s", r.numeric, problem)
	}
	if r.numeric[9] >= 24 || r.numeric[9] < 23.99999 {
		t.Errorf("hour %v", r.numeric[9])
	}
	if !math.IsNaN(float64(r.numeric[2])) || !math.IsNaN(float64(r.numeric[10])) {
		t.Error("what was not measured is a number")
	}
}

// Whatever the bytes, decoding gives a sample or an error, and a valid sample comes back from its own JSON unchanged.
func FuzzSample(f *testing.F) {
	f.Add(`{"timestamp":1795000500,"rtt_ms":20.5,"region":"eu","day_of_week":null}`)
	f.Add(`{"timestamp":"2026-11-18T11:15:00Z","bandwidth_mbps":1e30,"az":1.0}`)
	f.Add(`{"timestamp":[],"rtt_ms":-0}`)
	f.Fuzz(func(t *testing.T, content string) {
		var sample, again NetworkSample
		if json.Unmarshal([]byte(content), &sample) != nil || sample.Problem() != "" {
			return
		}
		written, err := json.Marshal(sample)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(written, &again); err != nil {
			t.Fatalf("%s: %v", written, err)
		}
		rewritten, _ := json.Marshal(again)
		if string(rewritten) != string(written) {
			t.Errorf("%s became %s", written, rewritten)
		}
	})
}
