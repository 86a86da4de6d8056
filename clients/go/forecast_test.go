package dwcp

import (
	"context"
	"encoding/json"
	"math"
	"path/filepath"
	"testing"
)

// A target without a forecast is null in JSON, not 0, and comes back as NaN.
func TestForecastInJSON(t *testing.T) {
	content, err := json.Marshal(Forecast{ThroughputMbps: 400, RTTMs: math.NaN(), JitterMs: 2, Version: "v"})
	must(t, err)
	if string(content) != `{"throughput_mbps":400,"rtt_ms":null,"packet_loss":0,"jitter_ms":2,"version":"v"}` {
		t.Error(string(content))
	}
	again := Forecast{}
	must(t, json.Unmarshal(content, &again))
	if !math.IsNaN(again.RTTMs) || again.ThroughputMbps != 400 || again.Version != "v" {
		t.Errorf("%+v", again)
	}
}

// What a graph gives is held to what is possible; a number that is none is an error, but for a target that is not forecast.
func TestForecastsArePossible(t *testing.T) {
	all, none := [targets]bool{true, true, true, true}, [targets]bool{}
	made, err := forecastOf([targets]float32{-3.5, 1e9, 5.6e5, -0.1}, all)
	if err != nil || made != (Forecast{RTTMs: 1e9, PacketLoss: 1}) {
		t.Errorf("%+v %v", made, err)
	}
	if made, err = forecastOf([targets]float32{}, none); err != nil || !math.IsNaN(made.ThroughputMbps) || !math.IsNaN(made.JitterMs) {
		t.Errorf("%+v %v", made, err)
	}
	for _, broken := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		if _, err := forecastOf([targets]float32{0, float32(broken), 0, 0}, all); err == nil {
			t.Errorf("%v passes", broken)
		}
	}
}

// A version by a release whose graphs have no bounds is opened, proven and used. Its forecasts are possible, or an error where the graph
// gives no number; jitter, which it has never seen, is missing.
func TestOlderVersion(t *testing.T) {
	client := open(t, filepath.Join(fixture(t), "older"), Options{})
	for _, c := range expected(t).Cases {
		if c.Forecast == nil {
			continue
		}
		made, err := client.Predict(context.Background(), c.Rows)
		if err != nil && c.Disturbed {
			continue
		}
		must(t, err)
		for target, value := range []float64{made.ThroughputMbps, made.RTTMs, made.PacketLoss} {
			if !(value >= 0 && value <= highest[target]) {
				t.Errorf("%s, %s: %v", c.Name, targetNames[target], value)
			}
		}
		if !math.IsNaN(made.JitterMs) {
			t.Errorf("%s: jitter %v", c.Name, made.JitterMs)
		}
	}
}
