package dwcp

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"

	ort "github.com/yalue/onnxruntime_go"
)

// LibraryVariable names ONNX Runtime's shared library where Options.Library does not.
const LibraryVariable = "ONNXRUNTIME_LIBRARY"

var runtimeStart sync.Mutex

// startRuntime loads ONNX Runtime once a process, unless the program has done so itself. It is never unloaded: its threads may outlive
// any client.
func startRuntime(library string) error {
	runtimeStart.Lock()
	defer runtimeStart.Unlock()
	if ort.IsInitialized() {
		return nil
	}
	if library == "" {
		library = os.Getenv(LibraryVariable)
	}
	if library == "" {
		library = "libonnxruntime.so" // where the loader looks: LD_LIBRARY_PATH, /usr/local/lib
	}
	// Official builds report usage to their vendor unless this is set before the library is loaded.
	if _, set := os.LookupEnv("ORT_DISABLE_TELEMETRY"); !set {
		os.Setenv("ORT_DISABLE_TELEMETRY", "1")
	}
	ort.SetSharedLibraryPath(library)
	if err := ort.InitializeEnvironment(ort.WithLogLevelFatal()); err != nil {
		return fmt.Errorf("dwcp: ONNX Runtime 1.24 or newer is needed: %w; name its shared library by Options.Library or %s "+
			"(the Python package onnxruntime has it as onnxruntime/capi/libonnxruntime.so.VERSION)", err, LibraryVariable)
	}
	return ort.DisableTelemetry()
}

// session is one graph, loaded. Any number of goroutines may run it at once: ONNX Runtime's Run is thread-safe, and its Go wrapper only
// reads the session's fields. destroy must come after the last run.
type session struct {
	onnx     *ort.DynamicAdvancedSession
	horizons int // how many the graph forecasts; 0: only the next row
}

// newSession loads a graph that keeps its contract, with what the version declares of it. horizons: how many it forecasts.
func newSession(graph []byte, d declared, horizons int) (*session, error) {
	options, err := ort.NewSessionOptions()
	if err != nil {
		return nil, err
	}
	defer options.Destroy()
	err = errors.Join(
		options.SetIntraOpNumThreads(1), // two threads gain nothing on such a graph (measured), and requests run beside each other
		options.SetInterOpNumThreads(1),
		options.SetCpuMemArena(false), // it would keep the memory of the largest run for ever, and is no faster (measured)
		options.SetLogSeverityLevel(ort.LoggingLevelFatal),
		// A graph has its weights inside: without this, it could name a file below the working directory, which no manifest vouches for.
		options.AddSessionConfigEntry("session.model_external_initializers_file_folder_path", os.DevNull),
	)
	if err != nil {
		return nil, err
	}
	run, err := ort.NewDynamicAdvancedSessionWithONNXData(graph, portNames(rawInputs), portNames(rawOutputs), options)
	if err != nil {
		return nil, fmt.Errorf("the graph cannot be loaded (%w)", err)
	}
	if err := portProblem(graph, d); err != nil {
		run.Destroy()
		return nil, err
	}
	return &session{run, horizons}, nil
}

// property returns one entry of the graph's metadata, empty if it has none.
func (s *session) property(key string) (string, error) {
	all, err := s.onnx.GetModelMetadata()
	if err != nil {
		return "", err
	}
	defer all.Destroy()
	value, _, err := all.LookupCustomMetadataMap(key)
	return value, err
}

// forecasts are what a graph returns for one window. nextRow: of each target. ahead: horizons, targets, then places; empty without
// horizons. Each is memory of its own, as window's are, because C writes into it.
type forecasts struct {
	nextRow []float32
	ahead   []float32
}

// run forecasts one window. known: its flat context; nil leaves the graph's default, which is that nothing is known. Every tensor is
// destroyed before it returns.
func (s *session) run(w *window, known []float32) (made forecasts, err error) {
	made = forecasts{make([]float32, targets), make([]float32, s.horizons*targets*places)}
	b := bound{}
	defer b.destroy()
	if b.onnx, err = s.onnx.CreateIoBinding(); err != nil { // by name, so that an optional input can be left out
		return made, err
	}
	categories, err := ort.NewStringTensor(ort.NewShape(1, WindowRows, categoryColumns))
	if err != nil {
		return made, err
	}
	b.values = append(b.values, categories)
	if err := categories.SetContents(w.categories); err != nil {
		return made, err
	}
	err = errors.Join(
		b.onnx.BindInput("categories", categories),
		bind(&b, b.onnx.BindInput, "time_s", w.timeS, 1, WindowRows),
		bind(&b, b.onnx.BindInput, "telemetry", w.telemetry, 1, ringRows, numericColumns),
		bind(&b, b.onnx.BindOutput, "forecast", made.nextRow, 1, targets),
	)
	if known != nil {
		err = errors.Join(err, bind(&b, b.onnx.BindInput, contextName, known, 1, int64(len(known))))
	}
	if s.horizons > 0 {
		err = errors.Join(err, bind(&b, b.onnx.BindOutput, aheadName, made.ahead, 1, int64(s.horizons), targets, places))
	}
	if err == nil {
		err = s.onnx.RunWithBinding(b.onnx)
	}
	if err != nil {
		return made, fmt.Errorf("the graph cannot be run (%w)", err)
	}
	return made, nil
}

// bound are the inputs and outputs of one run.
type bound struct {
	onnx   *ort.IoBinding
	values []ort.Value
	pins   runtime.Pinner // tensors keep pointers to Go's memory from one C call to the next
}

// bind gives a run an input or output, in memory of Go.
func bind[T float32 | float64](b *bound, to func(string, ort.Value) error, name string, values []T, shape ...int64) error {
	b.pins.Pin(&values[0])
	tensor, err := ort.NewTensor(ort.NewShape(shape...), values)
	if err != nil {
		return err
	}
	b.values = append(b.values, tensor)
	return to(name, tensor)
}

func (b *bound) destroy() {
	if b.onnx != nil {
		b.onnx.Destroy()
	}
	for _, value := range b.values {
		value.Destroy()
	}
	b.pins.Unpin()
}

func (s *session) destroy() { s.onnx.Destroy() }
