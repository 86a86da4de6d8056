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
	onnx *ort.DynamicAdvancedSession
}

// newSession loads a graph that keeps its contract, with what the version declares of it.
func newSession(graph []byte, d declared) (*session, error) {
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
	return &session{run}, nil
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

// run forecasts one window. Every tensor is destroyed before it returns.
func (s *session) run(w *window) (forecast [targets]float32, err error) {
	var pins runtime.Pinner // the tensors keep pointers to Go's memory from one C call to the next
	defer pins.Unpin()
	pins.Pin(&w.timeS[0])
	pins.Pin(&w.telemetry[0])
	pins.Pin(&forecast[0])
	timeS, err := ort.NewTensor(ort.NewShape(1, WindowRows), w.timeS)
	if err != nil {
		return forecast, err
	}
	defer timeS.Destroy()
	telemetry, err := ort.NewTensor(ort.NewShape(1, ringRows, numericColumns), w.telemetry)
	if err != nil {
		return forecast, err
	}
	defer telemetry.Destroy()
	categories, err := ort.NewStringTensor(ort.NewShape(1, WindowRows, categoryColumns))
	if err != nil {
		return forecast, err
	}
	defer categories.Destroy()
	if err := categories.SetContents(w.categories); err != nil {
		return forecast, err
	}
	output, err := ort.NewTensor(ort.NewShape(1, targets), forecast[:])
	if err != nil {
		return forecast, err
	}
	defer output.Destroy()
	if err := s.onnx.Run([]ort.Value{timeS, telemetry, categories}, []ort.Value{output}); err != nil {
		return forecast, fmt.Errorf("the graph cannot be run (%w)", err)
	}
	return forecast, nil
}

func (s *session) destroy() { s.onnx.Destroy() }
