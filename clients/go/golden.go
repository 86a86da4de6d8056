package dwcp

import (
	"encoding/json"
	"fmt"
	"math"
)

// What golden.json has at least and at most (model/version/golden_raw.py): a wider tolerance or fewer samples would prove little.
const (
	fewestSamples = 32
	mostSamples   = 256
)

// limit is the widest tolerance for a graph: absolute in standard deviations of a target, relative as a share of the forecast.
type limit struct{ absolute, relative float64 }

var limits = map[Graph]limit{Raw: {1e-4, 1e-5}, Int8: {0.2, 0.01}}

const rounding = 1 + 1e-6

// golden are the raw samples of golden.json: windows and the forecasts that any runtime has to give for them.
type golden struct {
	absolute [targets]float64
	relative float64
	samples  []goldenSample
}

// goldenSample is one of them. known is its flat context, and ahead has horizons, targets, then places; both are empty without horizons.
// A number is NaN if its target was never measured in training.
type goldenSample struct {
	name     string
	window   *window
	known    []float32
	forecast [targets]float64
	ahead    []float64
}

type goldenTolerance struct {
	Absolute []float64 `json:"absolute"`
	Relative float64   `json:"relative"`
}

type goldenDocument struct {
	Raw *struct {
		Tolerance     goldenTolerance     `json:"tolerance"`
		Int8Tolerance goldenTolerance     `json:"int8_tolerance"`
		Samples       []goldenSampleEntry `json:"samples"`
	} `json:"raw"`
}

type goldenSampleEntry struct {
	Name       string         `json:"name"`
	TimeS      []*float64     `json:"time_s"` // null for a row before the run's start
	Telemetry  [][]*float32   `json:"telemetry"`
	Categories [][]*string    `json:"categories"`
	Forecast   []*float64     `json:"forecast"` // null for a target that was never measured in training
	Int8       bool           `json:"int8"`
	Context    []*float32     `json:"context"` // null for what is not known
	Ahead      [][][]*float64 `json:"ahead"`   // null as in Forecast
}

// readGolden reads a version's samples for a graph.
func readGolden(v *version, graph Graph) (*golden, error) {
	document := goldenDocument{}
	if err := json.Unmarshal(v.golden, &document); err != nil {
		return nil, fmt.Errorf("%s cannot be read (%w)", goldenName, err)
	}
	if document.Raw == nil {
		return nil, fmt.Errorf("%s has no raw samples: the version was published by an older release", goldenName)
	}
	if count := len(document.Raw.Samples); count < fewestSamples || count > mostSamples {
		return nil, fmt.Errorf("%s has %d raw samples, %d to %d are needed", goldenName, count, fewestSamples, mostSamples)
	}
	g := &golden{}
	if err := g.readTolerance(&document, graph, v.scale); err != nil {
		return nil, err
	}
	for at, entry := range document.Raw.Samples {
		if graph == Int8 && !entry.Int8 {
			continue
		}
		sample, ok := entry.sample(v)
		if !ok {
			return nil, fmt.Errorf("%s: raw sample %d (%.40q) has another shape than a window and its forecasts", goldenName, at, entry.Name)
		}
		g.samples = append(g.samples, sample)
	}
	if 2*len(g.samples) < len(document.Raw.Samples) {
		return nil, fmt.Errorf("%s has only %d raw samples for this graph", goldenName, len(g.samples))
	}
	return g, nil
}

func (g *golden) readTolerance(document *goldenDocument, graph Graph, scale [targets]float64) error {
	tolerance, most := document.Raw.Tolerance, limits[graph]
	if graph == Int8 {
		tolerance = document.Raw.Int8Tolerance
	}
	if len(tolerance.Absolute) != targets || !(tolerance.Relative >= 0 && tolerance.Relative <= most.relative*rounding) {
		return fmt.Errorf("%s needs a tolerance for each of %d targets, and a relative one of at most %v", goldenName, targets, most.relative)
	}
	for target, absolute := range tolerance.Absolute {
		if widest := most.absolute * scale[target] * rounding; !(absolute >= 0 && absolute <= widest) {
			return fmt.Errorf("%s asks for a tolerance of %v for %s, at most %v proves something",
				goldenName, absolute, targetNames[target], widest)
		}
		g.absolute[target] = absolute
	}
	g.relative = tolerance.Relative
	return nil
}

func (e *goldenSampleEntry) sample(v *version) (sample goldenSample, ok bool) {
	w := newWindow()
	if len(e.TimeS) != WindowRows || len(e.Telemetry) != ringRows || len(e.Categories) != WindowRows || len(e.Forecast) != targets {
		return sample, false
	}
	for at, value := range e.TimeS {
		w.timeS[at] = math.NaN()
		if value != nil {
			w.timeS[at] = *value
		} else if len(v.horizons.rows) == 0 {
			return sample, false // a version that forecasts only the next row has whole windows alone
		}
	}
	for at, numbers := range e.Telemetry {
		if len(numbers) != numericColumns {
			return sample, false
		}
		for column, value := range numbers {
			w.telemetry[at*numericColumns+column] = float32(math.NaN())
			if value != nil {
				w.telemetry[at*numericColumns+column] = *value
			}
		}
	}
	for at, texts := range e.Categories {
		if len(texts) != categoryColumns {
			return sample, false
		}
		for column, value := range texts {
			if value != nil {
				w.categories[at*categoryColumns+column] = *value
			}
		}
	}
	sample = goldenSample{name: e.Name, window: w}
	for target, value := range e.Forecast {
		if sample.forecast[target], ok = expectedNumber(value, v.measured[target]); !ok {
			return sample, false
		}
	}
	return sample, e.fillAhead(&sample, v)
}

// fillAhead adds what a sample of a version with horizons has, and reports whether it has it.
func (e *goldenSampleEntry) fillAhead(sample *goldenSample, v *version) bool {
	horizons := len(v.horizons.rows)
	if horizons == 0 {
		return true
	}
	if len(e.Context) != targets*(contextRows+horizons) || len(e.Ahead) != horizons {
		return false
	}
	for _, value := range e.Context {
		known := float32(math.NaN())
		if value != nil {
			known = *value
		}
		sample.known = append(sample.known, known)
	}
	for _, horizon := range e.Ahead {
		if len(horizon) != targets {
			return false
		}
		for target, interval := range horizon {
			if len(interval) != places {
				return false
			}
			for _, value := range interval {
				number, ok := expectedNumber(value, v.measured[target])
				if !ok {
					return false
				}
				sample.ahead = append(sample.ahead, number)
			}
		}
	}
	return true
}

// expectedNumber returns NaN for null, which only a target that is not forecast may have.
func expectedNumber(value *float64, measured bool) (number float64, ok bool) {
	if value == nil {
		return math.NaN(), !measured
	}
	return *value, true
}

// check runs every sample by itself, and says which forecasts are not the expected ones.
func (g *golden) check(s *session) error {
	wrong, first := 0, ""
	for at, sample := range g.samples {
		made, err := s.run(sample.window, sample.known)
		if err != nil {
			return err
		}
		if problem := g.problem(&sample, &made); problem != "" {
			if wrong++; wrong == 1 {
				first = fmt.Sprintf("sample %d (%s), %s", at, sample.name, problem)
			}
		}
	}
	if wrong > 0 {
		return fmt.Errorf("the graph differs from %s in %d of %d raw samples, first in %s", goldenName, wrong, len(g.samples), first)
	}
	return nil
}

// problem returns the first number that is not the expected one, empty if there is none.
func (g *golden) problem(sample *goldenSample, made *forecasts) string {
	for target, value := range made.nextRow {
		if expected := sample.forecast[target]; !g.agree(target, value, expected) {
			return fmt.Sprintf("%s: %v instead of %v", targetNames[target], value, expected)
		}
	}
	for at, value := range made.ahead {
		target := at / places % targets
		if expected := sample.ahead[at]; !g.agree(target, value, expected) {
			return fmt.Sprintf("%s of horizon %d: %v instead of %v", targetNames[target], at/places/targets+1, value, expected)
		}
	}
	return ""
}

// agree reports whether a number is within its tolerance of the expected one. A NaN agrees only with a NaN.
func (g *golden) agree(target int, value float32, expected float64) bool {
	if math.IsNaN(expected) && math.IsNaN(float64(value)) {
		return true
	}
	return math.Abs(float64(value)-expected) <= g.absolute[target]+g.relative*math.Abs(expected)
}
