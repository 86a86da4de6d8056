package dwcp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"regexp"
	"strconv"
	"time"
	"unicode/utf8"
)

// Limits of a record's bytes, as the daemon has them (streams/records/csv_form.py, streams/records/decode.py, streams/records/validate.py).
const (
	// MaxRecordBytes is the size of the largest record that is telemetry.
	MaxRecordBytes = 1 << 20

	mostDepth        = 400
	mostNumberAsText = 1e255 // its digits and its sign fit into 256 characters
)

// DecodeRecord decodes one record of dwcp.telemetry: it accepts the bytes that the daemon accepts, and reads them the same. Names match
// letter by letter, and of a name that comes twice the last value counts. The clock apart: no time is too far in the future.
func DecodeRecord(value []byte) (NetworkSample, error) {
	var sample NetworkSample
	if len(value) > MaxRecordBytes {
		return sample, fmt.Errorf("longer than %d bytes", MaxRecordBytes)
	}
	if err := json.Unmarshal(value, &sample); err != nil {
		return NetworkSample{}, err
	}
	if problem := sample.recordProblem(); problem != "" {
		return NetworkSample{}, errors.New(problem)
	}
	return sample, nil
}

// recordProblem says why a sample is no record of a link; Problem does not ask for the link's ends.
func (s *NetworkSample) recordProblem() string {
	if problem := s.Problem(); problem != "" {
		return problem
	}
	for _, end := range []struct{ name, value string }{{"node_id", s.NodeID}, {"peer_id", s.PeerID}} {
		if end.value == "" {
			return end.name + " is missing or empty"
		}
		if utf8.RuneCountInString(end.value) > mostTextRune {
			return fmt.Sprintf("%s is longer than %d characters", end.name, mostTextRune)
		}
	}
	return ""
}

// UnmarshalJSON reads a telemetry record. A timestamp may be a number or an RFC 3339 text, a text field also a number, as for the daemon.
// What is not JSON for the daemon is an error: bytes that are not UTF-8, halves of surrogate pairs, nesting beyond 400.
func (s *NetworkSample) UnmarshalJSON(content []byte) error {
	if first := bytes.TrimLeft(content, " \t\r\n"); len(first) == 0 || first[0] != '{' {
		return fmt.Errorf("a JSON object is needed, not a %s", kindOf(first))
	}
	if err := checkText(content); err != nil {
		return err
	}
	// Not into a struct: encoding/json would match its names whatever their case, which the daemon does not.
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(content, &fields); err != nil {
		return err
	}
	fresh := NetworkSample{}
	if err := fresh.read(fields); err != nil {
		return err
	}
	*s = fresh
	return nil
}

// read sets the fields that a record has.
func (s *NetworkSample) read(fields map[string]json.RawMessage) (err error) {
	if raw, ok := fields["timestamp"]; ok {
		if s.Timestamp, err = instantOf(raw); err != nil {
			return err
		}
	}
	for _, text := range []struct {
		name   string
		target *string
	}{
		{"region", &s.Region}, {"az", &s.AZ}, {"link_type", &s.LinkType}, {"node_id", &s.NodeID}, {"peer_id", &s.PeerID},
		{"dwcp_mode", &s.DWCPMode}, {"network_tier", &s.NetworkTier}, {"transport_type", &s.TransportType},
	} {
		if raw, ok := fields[text.name]; ok {
			if *text.target, err = textOf(text.name, raw); err != nil {
				return err
			}
		}
	}
	for _, number := range []struct {
		name   string
		target **float64
	}{
		{"rtt_ms", &s.RTTMs}, {"jitter_ms", &s.JitterMs}, {"throughput_mbps", &s.ThroughputMbps}, {"bytes_tx", &s.BytesTx},
		{"bytes_rx", &s.BytesRx}, {"packet_loss", &s.PacketLoss}, {"retransmits", &s.Retransmits},
		{"congestion_window", &s.CongestionWindow}, {"queue_depth", &s.QueueDepth}, {"time_of_day", &s.TimeOfDay},
		{"day_of_week", &s.DayOfWeek}, {"bandwidth_mbps", &s.BandwidthMbps}, {"latency_ms", &s.LatencyMs},
	} {
		if raw, ok := fields[number.name]; ok && string(raw) != "null" {
			value, err := numberOf(number.name, raw)
			if err != nil {
				return err
			}
			*number.target = &value
		}
	}
	return nil
}

// checkText finds what encoding/json reads over: it puts U+FFFD for what is no character, and nests deeper than the daemon.
func checkText(content []byte) error {
	if !utf8.Valid(content) {
		return errors.New("it is not UTF-8")
	}
	depth, inText := 0, false
	for at := 0; at < len(content); at++ {
		switch symbol := content[at]; {
		case inText && symbol == '\\':
			width, whole := escape(content[at:])
			if !whole {
				return errors.New("a text has half of a surrogate pair")
			}
			at += width - 1
		case symbol == '"':
			inText = !inText
		case inText:
		case symbol == '{' || symbol == '[':
			if depth++; depth > mostDepth {
				return fmt.Errorf("nested deeper than %d", mostDepth)
			}
		case symbol == '}' || symbol == ']':
			depth--
		}
	}
	return nil
}

// escape returns the width of the escape that a text goes on with, and whether it is a whole character.
func escape(text []byte) (width int, whole bool) {
	switch unit := hexUnit(text); {
	case unit < 0:
		return 2, true
	case unit < 0xD800 || unit > 0xDFFF:
		return 6, true
	case unit > 0xDBFF:
		return 6, false
	}
	low := hexUnit(text[6:])
	return 12, low >= 0xDC00 && low <= 0xDFFF
}

// hexUnit is the UTF-16 unit of an escape like \u00e9 at the start of a text, -1 if there is none.
func hexUnit(text []byte) int {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return -1
	}
	unit, err := strconv.ParseUint(string(text[2:6]), 16, 16)
	if err != nil {
		return -1
	}
	return int(unit)
}

func kindOf(raw []byte) string {
	switch {
	case len(raw) == 0:
		return "nothing"
	case raw[0] == '"':
		return "string"
	case raw[0] == '[':
		return "array"
	case raw[0] == '{':
		return "object"
	case raw[0] == 't' || raw[0] == 'f':
		return "bool"
	case raw[0] == 'n':
		return "null"
	}
	return "number"
}

func isNumber(raw []byte) bool { return kindOf(raw) == "number" }

// numberOf is a JSON number as a double; -0 is 0.
func numberOf(name string, raw []byte) (float64, error) {
	if !isNumber(raw) {
		return 0, fmt.Errorf("%s is a JSON %s, a number is needed", name, kindOf(raw))
	}
	value, err := strconv.ParseFloat(string(raw), 64)
	if err != nil {
		return 0, fmt.Errorf("%s is a JSON number %.40s, a number is needed that a double can hold", name, raw)
	}
	if value == 0 {
		return 0, nil
	}
	return value, nil
}

// rfc3339 is what the daemon reads as a time (docs/telemetry.schema.json); time.Parse takes a comma and other offsets as well.
var rfc3339 = regexp.MustCompile(`^(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}:\d{2}(?:\.\d+)?)(?:[Zz]|([+-](?:[01]\d|2[0-3])):?([0-5]\d))$`)

// instantOf is a time in UTC seconds, of a JSON number or an RFC 3339 text, of which microseconds count; 0 for null.
func instantOf(raw []byte) (float64, error) {
	if string(raw) == "null" {
		return 0, nil
	}
	if isNumber(raw) {
		return numberOf("timestamp", raw)
	}
	var written string
	if raw[0] != '"' || json.Unmarshal(raw, &written) != nil {
		return 0, fmt.Errorf("timestamp is %.40s, UTC seconds or an RFC 3339 text is needed", raw)
	}
	wrong := fmt.Errorf("timestamp is %.40q, which is no RFC 3339 time with a zone, like 2026-11-23T10:15:00Z", written)
	parts := rfc3339.FindStringSubmatch(written)
	if parts == nil {
		return 0, wrong
	}
	offset := "Z"
	if parts[3] != "" {
		offset = parts[3] + ":" + parts[4]
	}
	moment, err := time.Parse(time.RFC3339Nano, parts[1]+"T"+parts[2]+offset)
	if err != nil {
		return 0, wrong
	}
	micro := moment.Round(time.Microsecond).UnixMicro()
	// The nearest double of the decimal number: a quotient of doubles would be rounded twice.
	return strconv.ParseFloat(fmt.Sprintf("%de-6", micro), 64)
}

// textOf is a text; a number counts as the text that it is written as, and 1.0 as 1, for they are the same number in JSON.
func textOf(name string, raw []byte) (string, error) {
	switch {
	case raw[0] == '"':
		var text string
		err := json.Unmarshal(raw, &text)
		return text, err
	case string(raw) == "null":
		return "", nil
	case !isNumber(raw):
		return "", fmt.Errorf("%s: %.20s stands where a text is needed", name, raw)
	}
	value, err := numberOf(name, raw)
	switch {
	case err != nil:
		return "", err
	case math.Abs(value) >= mostNumberAsText:
		return "", fmt.Errorf("%s is longer than %d characters", name, mostTextRune)
	case value == 0:
		return "0", nil
	case !bytes.ContainsAny(raw, ".eE"):
		return string(raw), nil
	case value == math.Trunc(value):
		whole, _ := big.NewFloat(value).Int(nil)
		return whole.String(), nil
	case math.Abs(value) < 1e-4:
		return strconv.FormatFloat(value, 'e', -1, 64), nil
	}
	return strconv.FormatFloat(value, 'f', -1, 64), nil
}
