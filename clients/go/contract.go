package dwcp

import (
	"fmt"
	"regexp"
	"slices"

	ort "github.com/yalue/onnxruntime_go"
)

// The contract of a published graph (model/version/contract.py): every raw graph has the ports of rawInputs and rawOutputs. A version declares
// further outputs, and inputs with a default value, in its metadata; of these, this client uses those of several horizons (ahead.go).

// port is an input or output of a graph. The first size of a shape is "batch"; a size that is not fixed is "?".
type port struct {
	Name  string `json:"name"`
	DType string `json:"dtype"`
	Shape []any  `json:"shape"` // "batch", "?", or a number
}

func (p port) String() string { return fmt.Sprintf("%.80q %s %v", p.Name, p.DType, p.Shape) }

// equals reports whether two ports are the same. Sizes are compared as they are written: they are of different types, int and int64.
func (p port) equals(other port) bool {
	return p.Name == other.Name && p.DType == other.DType && fmt.Sprint(p.Shape) == fmt.Sprint(other.Shape)
}

// declared is what a version declares of one of its graphs. Its operators are checked where it is published.
type declared struct {
	File    string
	Inputs  []port
	Outputs []port
}

var (
	filePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\.onnx$`)

	rawInputs = []port{
		{"time_s", "float64", []any{"batch", WindowRows}},
		{"telemetry", "float32", []any{"batch", ringRows, numericColumns}},
		{"categories", "string", []any{"batch", WindowRows, categoryColumns}},
	}
	rawOutputs = []port{{"forecast", "float32", []any{"batch", targets}}}

	dtypes = map[ort.TensorElementDataType]string{
		ort.TensorElementDataTypeFloat: "float32", ort.TensorElementDataTypeDouble: "float64",
		ort.TensorElementDataTypeString: "string", ort.TensorElementDataTypeInt64: "int64",
	}
)

// undeclared is what is true of a graph of a release that declared nothing.
func undeclared(graph Graph, version string) declared {
	return declared{File: "bandwidth_lstm_" + version + "." + graph.kind() + ".onnx"}
}

// portProblem compares a graph's inputs without a default value, and its outputs, with the contract and with what is declared.
func portProblem(graph []byte, d declared) error {
	inputs, outputs, err := ort.GetInputOutputInfoWithONNXData(graph)
	if err != nil {
		return fmt.Errorf("the graph cannot be described (%w)", err)
	}
	if err := comparePorts("input", rawInputs, inputs); err != nil {
		return err
	}
	return comparePorts("output", slices.Concat(rawOutputs, d.Outputs), outputs)
}

func comparePorts(what string, needed []port, infos []ort.InputOutputInfo) error {
	found := map[string]port{}
	for _, info := range infos {
		found[info.Name] = portOf(info)
	}
	for _, want := range needed {
		p, ok := found[want.Name]
		if !ok {
			return fmt.Errorf("the graph lacks the %s %v", what, want)
		}
		if !p.equals(want) {
			return fmt.Errorf("the graph has the %s %v instead of %v", what, p, want)
		}
		delete(found, want.Name)
	}
	for _, p := range found {
		return fmt.Errorf("the graph has the %s %v, which is not declared", what, p)
	}
	return nil
}

func portNames(ports []port) (names []string) {
	for _, p := range ports {
		names = append(names, p.Name)
	}
	return names
}

func portOf(info ort.InputOutputInfo) port {
	p := port{Name: info.Name, DType: dtypes[info.DataType]}
	for axis, size := range info.Dimensions {
		switch {
		case size > 0:
			p.Shape = append(p.Shape, size)
		case axis == 0:
			p.Shape = append(p.Shape, "batch")
		default:
			p.Shape = append(p.Shape, "?")
		}
	}
	return p
}
