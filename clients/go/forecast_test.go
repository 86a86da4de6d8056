package dwcp

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"path/filepath"
	"reflect"
	"strings"
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

// Each horizon has its bounds in JSON, null for a target without a forecast, and comes back as it was.
func TestHorizonsInJSON(t *testing.T) {
	made := Forecast{
		ThroughputMbps: 2, RTTMs: math.NaN(), Version: "v", Coverage: 0.9,
		Ahead: []Ahead{{Rows: 1, ThroughputMbps: Interval{1, 2, 3, 2.5}, RTTMs: noInterval, PacketLoss: Interval{0, 0, 0.5, 0.1}}},
	}
	content, err := json.Marshal(made)
	must(t, err)
	if string(content) != `{"throughput_mbps":2,"rtt_ms":null,"packet_loss":0,"jitter_ms":0,"version":"v","coverage":0.9,"ahead":[{"rows":1,`+
		`"throughput_mbps":{"lower":1,"median":2,"upper":3,"mean":2.5},"rtt_ms":null,"packet_loss":{"lower":0,"median":0,"upper":0.5,"mean":0.1},`+
		`"jitter_ms":{"lower":0,"median":0,"upper":0,"mean":0}}]}` {
		t.Error(string(content))
	}
	again := Forecast{}
	must(t, json.Unmarshal(content, &again))
	if !math.IsNaN(again.RTTMs) || again.Coverage != 0.9 || len(again.Ahead) != 1 {
		t.Fatalf("%+v", again)
	}
	if ahead := again.Ahead[0]; ahead.Rows != 1 || ahead.ThroughputMbps != (Interval{1, 2, 3, 2.5}) || !math.IsNaN(ahead.RTTMs.Upper) || !math.IsNaN(ahead.RTTMs.Mean) {
		t.Errorf("%+v", ahead)
	}
	sparse := Ahead{}
	must(t, json.Unmarshal([]byte(`{"rows":5,"rtt_ms":{"median":7}}`), &sparse))
	if sparse.RTTMs.Median != 7 || !math.IsNaN(sparse.RTTMs.Lower) || !math.IsNaN(sparse.JitterMs.Median) {
		t.Errorf("%+v", sparse)
	}
	if json.Unmarshal([]byte(`{"rows":5,"rtt_ms":7}`), &sparse) == nil {
		t.Error("a number in the place of an interval passes")
	}
}

// What a graph gives is held to what is possible; a number that is none is an error, but for a target that is not forecast.
func TestForecastsArePossible(t *testing.T) {
	all, none := [targets]bool{true, true, true, true}, [targets]bool{}
	made, err := forecastOf([targets]float32{-3.5, 1e9, 5.6e5, -0.1}, all)
	if err != nil || !reflect.DeepEqual(made, Forecast{RTTMs: 1e9, PacketLoss: 1}) {
		t.Errorf("%+v %v", made, err)
	}
	if made, err = forecastOf([targets]float32{}, none); err != nil || !math.IsNaN(made.ThroughputMbps) || !math.IsNaN(made.JitterMs) {
		t.Errorf("%+v %v", made, err)
	}
	for _, broken := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		if _, err := forecastOf([targets]float32{0, float32(broken), 0, 0}, all); err == nil {
			t.Errorf("%v passes", broken)
		}
		for at := range targets * places {
			values := [2 * targets * places]float32{}
			values[targets*places+at] = float32(broken)
			if _, err := aheadOf(values[:], []int{1, 5}, all); err == nil || !strings.Contains(err.Error(), targetNames[at/places]) {
				t.Errorf("%v passes ahead: %v", broken, err)
			}
		}
	}
	ahead, err := aheadOf([]float32{-2, -1, 7, -3, 1, 2, 3, 2, 0.5, 1.5, 2.5, 0.75, 0, 1e38, 3e38, 2e38}, []int{1}, [targets]bool{true, false, true, true})
	must(t, err)
	if a := ahead[0]; a.ThroughputMbps != (Interval{0, 0, 7, 0}) || a.PacketLoss != (Interval{0.5, 1, 1, 0.75}) || a.JitterMs != (Interval{0, 1e37, 1e37, 1e37}) {
		t.Errorf("%+v", a)
	}
	if !math.IsNaN(ahead[0].RTTMs.Lower) || !math.IsNaN(ahead[0].RTTMs.Median) || !math.IsNaN(ahead[0].RTTMs.Upper) || !math.IsNaN(ahead[0].RTTMs.Mean) {
		t.Errorf("%+v", ahead[0].RTTMs)
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
		var few *TooFewRowsError
		if errors.As(err, &few) && few.Need == WindowRows || err != nil && c.Disturbed {
			continue // the stream is long enough for a version of several horizons alone
		}
		must(t, err)
		for target, value := range []float64{made.ThroughputMbps, made.RTTMs, made.PacketLoss} {
			if !(value >= 0 && value <= highest[target]) {
				t.Errorf("%s, %s: %v", c.Name, targetNames[target], value)
			}
		}
		if made.Ahead != nil || made.Coverage != 0 {
			t.Errorf("%s: horizons %+v", c.Name, made)
		}
		if !math.IsNaN(made.JitterMs) {
			t.Errorf("%s: jitter %v", c.Name, made.JitterMs)
		}
	}
}
