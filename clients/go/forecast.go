package dwcp

import (
	"encoding/json"
	"fmt"
	"math"
)

// Forecast is what is expected at a link's next row, in the units of its fields. A number is possible: not below 0, and no loss over 1.
// It is NaN, in JSON null, for a target that was never measured in the training of its version.
//
// Ahead has each horizon of a version that forecasts several, ascending from the next row, whose medians are the numbers above. Between
// Lower and Upper of each lay the share Coverage of what was measured in the version's validation. Without horizons they are nil and 0.
type Forecast struct {
	ThroughputMbps float64
	RTTMs          float64
	PacketLoss     float64
	JitterMs       float64
	Version        string
	Coverage       float64
	Ahead          []Ahead
}

// wireForecast is a Forecast in JSON, which has no NaN.
type wireForecast struct {
	ThroughputMbps *float64 `json:"throughput_mbps"`
	RTTMs          *float64 `json:"rtt_ms"`
	PacketLoss     *float64 `json:"packet_loss"`
	JitterMs       *float64 `json:"jitter_ms"`
	Version        string   `json:"version"`
	Coverage       float64  `json:"coverage,omitempty"`
	Ahead          []Ahead  `json:"ahead,omitempty"`
}

// MarshalJSON writes null where there is no forecast.
func (f Forecast) MarshalJSON() ([]byte, error) {
	return json.Marshal(wireForecast{
		Known(f.ThroughputMbps), Known(f.RTTMs), Known(f.PacketLoss), Known(f.JitterMs), f.Version, f.Coverage, f.Ahead,
	})
}

// UnmarshalJSON reads NaN where there is null or nothing.
func (f *Forecast) UnmarshalJSON(content []byte) error {
	wire := wireForecast{}
	if err := json.Unmarshal(content, &wire); err != nil {
		return err
	}
	*f = Forecast{
		orNaN(wire.ThroughputMbps), orNaN(wire.RTTMs), orNaN(wire.PacketLoss), orNaN(wire.JitterMs), wire.Version, wire.Coverage, wire.Ahead,
	}
	return nil
}

// Known returns a pointer to a value of a forecast, nil if there is none: what encoding/json writes as null.
func Known(value float64) *float64 {
	if math.IsNaN(value) {
		return nil
	}
	return &value
}

// highest is the largest possible value of each target (model/version/possible.py): a share is at most 1.
var highest = [targets]float64{1e37, 1e37, 1, 1e37}

// forecastOf limits what a graph returns to what is possible, which the graphs of older releases do not do themselves.
func forecastOf(values [targets]float32, measured [targets]bool) (made Forecast, err error) {
	for target, to := range []*float64{&made.ThroughputMbps, &made.RTTMs, &made.PacketLoss, &made.JitterMs} {
		if *to, err = possible(values[target], target, measured[target]); err != nil {
			return Forecast{}, err
		}
	}
	return made, nil
}

// possible limits one number of a graph. It is NaN for a target that was not measured in training; any other that is not a number is an
// error.
func possible(single float32, target int, measured bool) (float64, error) {
	value := float64(single)
	switch {
	case !measured:
		return math.NaN(), nil
	case math.IsNaN(value) || math.IsInf(value, 0):
		return 0, fmt.Errorf("forecasts %v for %s: some number in the rows is too extreme", single, targetNames[target])
	}
	return min(max(value, 0), highest[target]), nil
}
