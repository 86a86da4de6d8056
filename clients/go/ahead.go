package dwcp

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
)

// A version may forecast several horizons, each with an interval: model/version/contract.py has the ports, model/version/metadata.py the rules.

const (
	mostHorizons = 16
	places       = 4 // lower, median, upper and mean
	contextRows  = 3 // of a LinkContext before those of the horizons

	contextName = "context"
	aheadName   = "ahead"
)

// Ahead is what is expected Rows rows after a link's last one, in the units of the fields. 1 is the next row.
type Ahead struct {
	Rows           int      `json:"rows"`
	ThroughputMbps Interval `json:"throughput_mbps"`
	RTTMs          Interval `json:"rtt_ms"`
	PacketLoss     Interval `json:"packet_loss"`
	JitterMs       Interval `json:"jitter_ms"`
}

// Interval is a forecast with its bounds: as many values lie above the Median as below. Mean is what sums want; where loss is mostly 0, its
// median is 0. All four are NaN, and the interval is null in JSON, for a target that was never measured in the training of its version.
type Interval struct{ Lower, Median, Upper, Mean float64 }

type wireInterval struct {
	Lower  *float64 `json:"lower"`
	Median *float64 `json:"median"`
	Upper  *float64 `json:"upper"`
	Mean   *float64 `json:"mean"`
}

var noInterval = Interval{math.NaN(), math.NaN(), math.NaN(), math.NaN()}

// MarshalJSON writes null if there is no forecast.
func (i Interval) MarshalJSON() ([]byte, error) {
	if math.IsNaN(i.Median) {
		return []byte("null"), nil
	}
	return json.Marshal(wireInterval{Known(i.Lower), Known(i.Median), Known(i.Upper), Known(i.Mean)})
}

// UnmarshalJSON reads NaN for null and for what is missing.
func (i *Interval) UnmarshalJSON(content []byte) error {
	wire := wireInterval{}
	if err := json.Unmarshal(content, &wire); err != nil {
		return err
	}
	*i = Interval{orNaN(wire.Lower), orNaN(wire.Median), orNaN(wire.Upper), orNaN(wire.Mean)}
	return nil
}

// UnmarshalJSON reads NaN for null and for what is missing.
func (a *Ahead) UnmarshalJSON(content []byte) error {
	type plain Ahead
	wire := plain{ThroughputMbps: noInterval, RTTMs: noInterval, PacketLoss: noInterval, JitterMs: noInterval}
	if err := json.Unmarshal(content, &wire); err != nil {
		return err
	}
	*a = Ahead(wire)
	return nil
}

// LinkContext is what is known of a link beyond the rows of its window, for a version of several horizons. Each row has a value of each
// target (throughput, round-trip time, loss, jitter, in the units of a Forecast), NaN if it is not known: the link's slow level, its spread,
// its usual level at the time of day of its last row, then its usual level at the time of each horizon.
type LinkContext [][targets]float32

// flat returns the numbers row after row, nil for a version without horizons: its graph does not read them.
func (l LinkContext) flat(version string, horizons int) ([]float32, error) {
	if l == nil || horizons == 0 {
		return nil, nil
	}
	if need := contextRows + horizons; len(l) != need {
		return nil, &LinkContextError{Version: version, Rows: len(l), Need: need}
	}
	values := make([]float32, 0, len(l)*targets)
	for _, row := range l {
		values = append(values, row[:]...)
	}
	return values, nil
}

// horizons is what metadata say of the rows ahead that a version forecasts; the zero value: only the next row.
type horizons struct {
	rows     []int
	coverage float64 // share of what was measured in its validation that lay between lower and upper forecast
}

// readHorizons reads the entry "forecast" of metadata, which versions of one horizon do not have. graphs: what is declared of each graph.
func readHorizons(content json.RawMessage, graphs map[string]declared) (h horizons, err error) {
	value, err := decodeAny(content)
	if err != nil || value == nil {
		return h, err
	}
	entry, _ := value.(map[string]any)
	if h.rows = rowsAhead(entry["horizons_rows"]); h.rows == nil {
		return h, fmt.Errorf("forecast.horizons_rows is not a list of at most %d rows ahead that ascend from 1", mostHorizons)
	}
	share, _ := entry["coverage"].(json.Number)
	if h.coverage, err = strconv.ParseFloat(string(share), 64); err != nil || !(h.coverage > 0 && h.coverage < 1) {
		return h, fmt.Errorf("forecast.coverage is %.80q, which is not a share between 0 and 1", fmt.Sprint(entry["coverage"]))
	}
	count := int64(len(h.rows))
	context := port{contextName, "float32", []any{"batch", targets * (contextRows + count)}}
	ahead := port{aheadName, "float32", []any{"batch", count, int64(targets), int64(places)}}
	for _, kind := range graphKinds {
		d, there := graphs[kind]
		if !there {
			return h, fmt.Errorf("it has horizons and declares no graphs")
		}
		if !slices.ContainsFunc(d.Inputs, context.equals) || !slices.ContainsFunc(d.Outputs, ahead.equals) {
			return h, fmt.Errorf("graphs.%s does not declare the input %v and the output %v of %d horizons", kind, context, ahead, count)
		}
	}
	return h, nil
}

// rowsAhead returns whole numbers that ascend from 1, nil if the value is something else.
func rowsAhead(value any) (rows []int) {
	list, _ := value.([]any)
	if len(list) > mostHorizons {
		return nil
	}
	for at, each := range list {
		number, ok := count(each)
		if !ok || at == 0 && number != 1 || at > 0 && int(number) <= rows[at-1] {
			return nil
		}
		rows = append(rows, int(number))
	}
	return rows
}

// aheadOf limits the forecasts of all horizons to possible values, as forecastOf does. values: horizons, targets, then places.
func aheadOf(values []float32, rows []int, measured [targets]bool) ([]Ahead, error) {
	var made []Ahead
	for at, row := range rows {
		held := [targets]Interval{}
		for target := range targets {
			from := (at*targets + target) * places
			for place, to := range []*float64{&held[target].Lower, &held[target].Median, &held[target].Upper, &held[target].Mean} {
				value, err := possible(values[from+place], target, measured[target])
				if err != nil {
					return nil, err
				}
				*to = value
			}
		}
		made = append(made, Ahead{row, held[0], held[1], held[2], held[3]})
	}
	return made, nil
}
