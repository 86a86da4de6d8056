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

type goldenSample struct {
	name     string
	window   *window
	forecast [targets]float64
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
	Name       string       `json:"name"`
	TimeS      []float64    `json:"time_s"`
	Telemetry  [][]*float32 `json:"telemetry"`
	Categories [][]*string  `json:"categories"`
	Forecast   []*float64   `json:"forecast"` // null for a target that was never measured in training
	Int8       bool         `json:"int8"`
}

// readGolden reads the samples for a graph. scale: of each target, which bounds the tolerance. measured: the targets that are forecast.
func readGolden(content []byte, graph Graph, scale [targets]float64, measured [targets]bool) (*golden, error) {
	document := goldenDocument{}
	if err := json.Unmarshal(content, &document); err != nil {
		return nil, fmt.Errorf("%s cannot be read (%w)", goldenName, err)
	}
	if document.Raw == nil {
		return nil, fmt.Errorf("%s has no raw samples: the version was published by an older release", goldenName)
	}
	if count := len(document.Raw.Samples); count < fewestSamples || count > mostSamples {
		return nil, fmt.Errorf("%s has %d raw samples, %d to %d are needed", goldenName, count, fewestSamples, mostSamples)
	}
	g := &golden{}
	if err := g.readTolerance(&document, graph, scale); err != nil {
		return nil, err
	}
	for at, entry := range document.Raw.Samples {
		if graph == Int8 && !entry.Int8 {
			continue
		}
		sample, ok := entry.sample(measured)
		if !ok {
			return nil, fmt.Errorf("%s: raw sample %d (%.40q) has another shape than a window and its forecast", goldenName, at, entry.Name)
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

func (e *goldenSampleEntry) sample(measured [targets]bool) (sample goldenSample, ok bool) {
	w := newWindow()
	if len(e.TimeS) != WindowRows || len(e.Telemetry) != ringRows || len(e.Categories) != WindowRows || len(e.Forecast) != targets {
		return sample, false
	}
	copy(w.timeS, e.TimeS)
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
		if value != nil {
			sample.forecast[target] = *value
		} else if measured[target] {
			return sample, false
		} else {
			sample.forecast[target] = math.NaN()
		}
	}
	return sample, true
}

// check runs every sample by itself, and says which forecasts are not the expected ones.
func (g *golden) check(s *session) error {
	wrong, first := 0, ""
	for at, sample := range g.samples {
		forecast, err := s.run(sample.window)
		if err != nil {
			return err
		}
		for target, value := range forecast {
			expected := sample.forecast[target]
			difference := math.Abs(float64(value) - expected)
			if math.IsNaN(expected) && math.IsNaN(float64(value)) {
				continue
			}
			if !(difference <= g.absolute[target]+g.relative*math.Abs(expected)) { // this way round, a NaN is wrong
				if wrong++; wrong == 1 {
					first = fmt.Sprintf("sample %d (%s), %s: %v instead of %v", at, sample.name, targetNames[target], value, expected)
				}
				break
			}
		}
	}
	if wrong > 0 {
		return fmt.Errorf("the graph differs from %s in %d of %d raw samples, first in %s", goldenName, wrong, len(g.samples), first)
	}
	return nil
}
