package dwcp

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"testing"
)

// Every golden vector and every random stream that Python has forecast gives the same forecast here, with each graph: streams with
// outages, spikes and counters too, and null where a version has never seen a target. Every number is possible.
func TestParityWithPython(t *testing.T) {
	for folder, file := range map[string]string{"models": "expected.json", "partial": "partial.json"} {
		for graph, name := range map[Graph]string{Raw: "raw", Int8: "int8"} {
			t.Run(folder+" "+name, func(t *testing.T) { compare(t, filepath.Join(fixture(t), folder), graph, expectedIn(t, file)) })
		}
	}
}

func compare(t *testing.T, folder string, graph Graph, document expectedDocument) {
	client := open(t, folder, Options{Graph: graph})
	compared, tooFew, missing, worst := 0, 0, 0, 0.0
	for _, c := range document.Cases {
		want := c.Forecast
		if graph == Int8 && want != nil {
			if want = c.Int8; want == nil {
				continue
			}
		}
		forecast, err := client.Predict(context.Background(), c.Rows)
		var few *TooFewRowsError
		if want == nil {
			if tooFew++; !errors.As(err, &few) {
				t.Errorf("%s: %v instead of too few rows", c.Name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.Name, err)
			continue
		}
		compared++
		for target, got := range []float64{forecast.ThroughputMbps, forecast.RTTMs, forecast.PacketLoss, forecast.JitterMs} {
			if want[target] == nil {
				if missing++; !math.IsNaN(got) {
					t.Errorf("%s, %s: %v, which was never measured in training", c.Name, targetNames[target], got)
				}
				continue
			}
			allowed := document.Tolerance.Absolute[target] + document.Tolerance.Relative*math.Abs(*want[target])
			if c.Disturbed {
				allowed *= 5
			}
			difference := math.Abs(got - *want[target])
			worst = max(worst, difference/allowed)
			if !(difference <= allowed && got >= 0 && got <= highest[target]) {
				t.Errorf("%s, %s: %v instead of %v", c.Name, targetNames[target], got, *want[target])
			}
		}
	}
	if compared < len(document.Cases)/2 || tooFew < len(document.Cases)/40 {
		t.Errorf("only %d streams were compared, and %d were too short", compared, tooFew)
	}
	t.Logf("%d random streams compared, %d too short, %d numbers missing; largest difference: %.2g of the tolerance", compared, tooFew, missing, worst)
}

// The golden vectors that Open runs are those of the file, and one by one they give what it says.
func TestGoldenVectors(t *testing.T) {
	document := expected(t)
	folder := filepath.Join(fixture(t), "models")
	open(t, folder, Options{}) // starts the runtime
	root, err := os.OpenRoot(folder)
	must(t, err)
	defer root.Close()
	for graph, name := range map[Graph]string{Raw: "raw", Int8: "int8"} {
		v, err := openVersion(root, document.First, publicKey(t), graph)
		must(t, err)
		samples, err := readGolden(v.golden, graph, v.scale, v.measured)
		must(t, err)
		session, err := newSession(v.graph, v.declared)
		must(t, err)
		must(t, samples.check(session))
		if len(samples.samples) < 8 {
			t.Errorf("%s: only %d golden vectors", name, len(samples.samples))
		}
		samples.samples[3].forecast[1] += 2 * (samples.absolute[1] + samples.relative*math.Abs(samples.samples[3].forecast[1]))
		if samples.check(session) == nil {
			t.Errorf("%s: a forecast that is wrong by twice the tolerance passes", name)
		}
		t.Logf("%s: %d golden vectors agree", name, len(samples.samples))
		session.destroy()
	}
}
