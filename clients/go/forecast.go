package dwcp

import (
	"encoding/json"
	"fmt"
	"math"
)

// Forecast is what is expected at a link's next row, in the units of its fields. A number is possible: not below 0, and no loss over 1.
// It is NaN, in JSON null, for a target that was never measured in the training of its version.
type Forecast struct {
	ThroughputMbps float64
	RTTMs          float64
	PacketLoss     float64
	JitterMs       float64
	Version        string
}

// wireForecast is a Forecast in JSON, which has no NaN.
type wireForecast struct {
	ThroughputMbps *float64 `json:"throughput_mbps"`
	RTTMs          *float64 `json:"rtt_ms"`
	PacketLoss     *float64 `json:"packet_loss"`
	JitterMs       *float64 `json:"jitter_ms"`
	Version        string   `json:"version"`
}

// MarshalJSON writes null where there is no forecast.
func (f Forecast) MarshalJSON() ([]byte, error) {
	return json.Marshal(wireForecast{
		Known(f.ThroughputMbps), Known(f.RTTMs), Known(f.PacketLoss), Known(f.JitterMs), f.Version,
	})
}

// UnmarshalJSON reads NaN where there is null or nothing.
func (f *Forecast) UnmarshalJSON(content []byte) error {
	wire := wireForecast{}
	if err := json.Unmarshal(content, &wire); err != nil {
		return err
	}
	*f = Forecast{orNaN(wire.ThroughputMbps), orNaN(wire.RTTMs), orNaN(wire.PacketLoss), orNaN(wire.JitterMs), wire.Version}
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

// forecastOf holds what a graph returns to what is possible, which the graphs of older releases do not do themselves. A target that was not
// measured in training is NaN; any other that is not a number is an error.
func forecastOf(values [targets]float32, measured [targets]bool) (Forecast, error) {
	held := [targets]float64{}
	for target, single := range values {
		value := float64(single)
		switch {
		case !measured[target]:
			held[target] = math.NaN()
		case math.IsNaN(value) || math.IsInf(value, 0):
			return Forecast{}, fmt.Errorf("forecasts %v for %s: some number in the rows is too extreme", single, targetNames[target])
		default:
			held[target] = min(max(value, 0), highest[target])
		}
	}
	return Forecast{ThroughputMbps: held[0], RTTMs: held[1], PacketLoss: held[2], JitterMs: held[3]}, nil
}
