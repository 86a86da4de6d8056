package dwcp

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// Every random stream that Python has forecast gives the same forecasts here, of each horizon, with a context and without one, with each
// graph: streams with outages, spikes and counters too, and null if a version has never seen a target. Every number is possible.
func TestParityWithPython(t *testing.T) {
	for folder, file := range map[string]string{"models": "expected.json", "partial": "partial.json", "next_row": "next_row.json"} {
		for graph, name := range map[Graph]string{Raw: "raw", Int8: "int8"} {
			t.Run(folder+" "+name, func(t *testing.T) {
				p := parity{document: expectedIn(t, file), client: open(t, filepath.Join(fixture(t), folder), Options{Graph: graph}), graph: graph}
				p.compare(t)
			})
		}
	}
}

// parity compares one version's forecasts with those of a document, and counts.
type parity struct {
	document                         expectedDocument
	client                           *Client
	graph                            Graph
	compared, tooFew, missing, moved int // moved: forecasts that the context changes
	worst                            float64
}

func (p *parity) compare(t *testing.T) {
	if !slices.Equal(p.client.Horizons(), p.document.Horizons) {
		t.Fatalf("the horizons are %v", p.client.Horizons())
	}
	for _, c := range p.document.Cases {
		made, err := p.client.Predict(context.Background(), c.Rows)
		if c.Forecast == nil {
			var few *TooFewRowsError
			if p.tooFew++; !errors.As(err, &few) {
				t.Errorf("%s: %v instead of too few rows", c.Name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.Name, err)
			continue
		}
		p.compared++
		p.compareOne(t, c.Name, c.Disturbed, &made, &c.expectedForecasts)
		if c.Known == nil {
			continue
		}
		known, err := p.client.PredictKnowing(context.Background(), c.Rows, c.Known.context())
		if err != nil {
			t.Errorf("%s with a context: %v", c.Name, err)
			continue
		}
		p.compareOne(t, c.Name+" with a context", c.Disturbed, &known, &c.Known.expectedForecasts)
		if last := len(p.document.Horizons) - 1; known.Ahead[last].ThroughputMbps != made.Ahead[last].ThroughputMbps {
			p.moved++
		}
	}
	if p.compared < len(p.document.Cases)/2 || p.tooFew == 0 {
		t.Errorf("only %d streams were compared, and %d were too short", p.compared, p.tooFew)
	}
	if len(p.document.Horizons) > 0 && p.moved < p.compared/2 {
		t.Errorf("the context changes only %d of %d forecasts: it may not be read", p.moved, p.compared)
	}
	t.Logf("%d random streams compared, %d too short, %d numbers missing; largest difference: %.2g of the tolerance",
		p.compared, p.tooFew, p.missing, p.worst)
}

// compareOne compares all numbers of one forecast.
func (p *parity) compareOne(t *testing.T, name string, disturbed bool, made *Forecast, want *expectedForecasts) {
	nextRow, ahead := want.Forecast, want.Ahead
	if p.graph == Int8 {
		nextRow, ahead = want.Int8, want.Int8Ahead
	}
	for target, got := range []float64{made.ThroughputMbps, made.RTTMs, made.PacketLoss, made.JitterMs} {
		p.compareNumber(t, name, disturbed, target, got, nextRow[target])
	}
	if len(made.Ahead) != len(ahead) || len(ahead) != len(p.document.Horizons) || len(ahead) > 0 != (made.Coverage == 0.9) {
		t.Fatalf("%s: %d horizons instead of %d, coverage %v", name, len(made.Ahead), len(ahead), made.Coverage)
	}
	for at, horizon := range made.Ahead {
		if horizon.Rows != p.document.Horizons[at] {
			t.Errorf("%s: horizon %d is %d rows ahead", name, at, horizon.Rows)
		}
		for target, got := range []Interval{horizon.ThroughputMbps, horizon.RTTMs, horizon.PacketLoss, horizon.JitterMs} {
			for place, number := range []float64{got.Lower, got.Median, got.Upper, got.Mean} {
				p.compareNumber(t, fmt.Sprintf("%s, %d rows ahead, place %d", name, horizon.Rows, place), disturbed, target, number, ahead[at][target][place])
			}
			if got.Lower > got.Median || got.Median > got.Upper {
				t.Errorf("%s, %d rows ahead, %s: %+v", name, horizon.Rows, targetNames[target], got)
			}
		}
	}
	if len(made.Ahead) > 0 && (made.Ahead[0].PacketLoss.Median != made.PacketLoss || made.Ahead[0].ThroughputMbps.Median != made.ThroughputMbps) {
		t.Errorf("%s: the next row is %+v and %+v", name, made, made.Ahead[0])
	}
}

func (p *parity) compareNumber(t *testing.T, name string, disturbed bool, target int, got float64, want *float64) {
	if want == nil {
		if p.missing++; !math.IsNaN(got) {
			t.Errorf("%s, %s: %v, which was never measured in training", name, targetNames[target], got)
		}
		return
	}
	allowed := p.document.Tolerance.Absolute[target] + p.document.Tolerance.Relative*math.Abs(*want)
	if disturbed {
		allowed *= 5
	}
	difference := math.Abs(got - *want)
	p.worst = max(p.worst, difference/allowed)
	if !(difference <= allowed && got >= 0 && got <= highest[target]) {
		t.Errorf("%s, %s: %v instead of %v", name, targetNames[target], got, *want)
	}
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
		samples, err := readGolden(v, graph)
		must(t, err)
		session, err := newSession(v.graph, v.declared, len(v.horizons.rows))
		must(t, err)
		must(t, samples.check(session))
		if len(samples.samples) < 8 {
			t.Errorf("%s: only %d golden vectors", name, len(samples.samples))
		}
		samples.samples[3].forecast[1] += 2 * (samples.absolute[1] + samples.relative*math.Abs(samples.samples[3].forecast[1]))
		if samples.check(session) == nil {
			t.Errorf("%s: a forecast that is wrong by twice the tolerance passes", name)
		}
		samples.samples[3].forecast[1] = float64(mustRun(t, session, samples.samples[3]).nextRow[1])
		must(t, samples.check(session))
		ahead := samples.samples[5].ahead // of the last horizon the upper forecast of the RTT
		at := len(ahead) - targets*places + places + 2
		ahead[at] += 2 * (samples.absolute[1] + samples.relative*math.Abs(ahead[at]))
		if err := samples.check(session); err == nil || !strings.Contains(err.Error(), "rtt_ms of horizon 3: ") {
			t.Errorf("%s: a forecast ahead that is wrong by twice the tolerance passes: %v", name, err)
		}
		ahead[at] = float64(mustRun(t, session, samples.samples[5]).ahead[at])
		must(t, samples.check(session))
		for index := range samples.samples {
			samples.samples[index].known = nil
		}
		if samples.check(session) == nil {
			t.Errorf("%s: the golden vectors agree without their contexts: these prove nothing", name)
		}
		t.Logf("%s: %d golden vectors agree", name, len(samples.samples))
		session.destroy()
	}
}

func mustRun(t *testing.T, s *session, sample goldenSample) forecasts {
	t.Helper()
	made, err := s.run(sample.window, sample.known)
	must(t, err)
	return made
}

// A graph that does not read a context cannot be proven with one.
func TestGraphWithoutContext(t *testing.T) {
	document := expected(t)
	open(t, filepath.Join(fixture(t), "models"), Options{}) // starts the runtime
	root, err := os.OpenRoot(filepath.Join(fixture(t), "next_row"))
	must(t, err)
	defer root.Close()
	v, err := openVersion(root, document.NextRow, publicKey(t), Raw)
	must(t, err)
	samples, err := readGolden(v, Raw)
	must(t, err)
	session, err := newSession(v.graph, v.declared, 0)
	must(t, err)
	defer session.destroy()
	must(t, samples.check(session))
	samples.samples[0].known = make([]float32, 24)
	if err := samples.check(session); err == nil || !strings.Contains(err.Error(), "the graph cannot be run") {
		t.Error(err)
	}
}

// A context has a row for each horizon of the live version. One that was made for another version is refused, and one that forecasts only the
// next row does not use it.
func TestLinkContext(t *testing.T) {
	folder, document := withNextRow(t), expected(t)
	client, rows := open(t, folder, Options{}), document.Cases[0].Rows
	known := document.Cases[0].Known.context()
	for _, wrong := range []LinkContext{{}, known[:3], known[1:], append(slices.Clone(known), known[0])} {
		_, err := client.PredictKnowing(context.Background(), rows, wrong)
		var refused *LinkContextError
		if !errors.As(err, &refused) || refused.Need != 6 || refused.Rows != len(wrong) || !strings.Contains(err.Error(), document.First+" needs 6") {
			t.Errorf("%d rows: %v", len(wrong), err)
		}
	}
	infinite := slices.Clone(known)
	infinite[0][1] = float32(math.Inf(1))
	if made, err := client.PredictKnowing(context.Background(), rows, infinite); err == nil && math.IsNaN(made.Ahead[2].RTTMs.Upper) {
		t.Errorf("%+v", made)
	}
	setCurrent(t, folder, document.NextRow)
	_, err := client.Refresh()
	must(t, err)
	with, err := client.PredictKnowing(context.Background(), rows, known)
	must(t, err)
	without, err := client.Predict(context.Background(), rows)
	must(t, err)
	if !reflect.DeepEqual(with, without) || with.Ahead != nil || with.Coverage != 0 || client.Horizons() != nil {
		t.Errorf("%+v instead of %+v", with, without)
	}
}
