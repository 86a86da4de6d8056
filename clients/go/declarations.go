package dwcp

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// What metadata declare of a version's graphs, by the rules of model/version/declarations.py: texts and lists are bounded, because the
// metadata may come from another machine. Names of entries match letter by letter, which encoding/json's structures do not do.

const (
	mostPorts       = 32
	mostOperators   = 64
	mostNameLetters = 200
	mostSizes       = 8
	mostCount       = 1<<31 - 1
)

var (
	graphKinds = []string{"core", "raw", "int8"}
	portTypes  = []string{"float32", "float64", "int64", "string"}

	// contractNames are the ports that every graph of a kind has.
	contractNames = map[string][]string{
		"core": {"input", "output"},
		"raw":  slices.Concat(portNames(rawInputs), portNames(rawOutputs)),
		"int8": slices.Concat(portNames(rawInputs), portNames(rawOutputs)),
	}
)

// wholeNumber reads the number of a schema or of features: 1 or more, which neither true, 1.0 nor null is.
func wholeNumber(content json.RawMessage, key string) (int, error) {
	value, err := decodeAny(content)
	if err == nil {
		if number, ok := count(value); ok {
			return int(number), nil
		}
	}
	return 0, fmt.Errorf("%s is %.80q, which is not a whole number from 1", key, content)
}

func readGraphs(content json.RawMessage) (map[string]declared, error) {
	value, err := decodeAny(content)
	if err != nil {
		return nil, err
	}
	document, ok := value.(map[string]any)
	for _, kind := range graphKinds {
		_, there := document[kind]
		ok = ok && there
	}
	if !ok || len(document) != len(graphKinds) {
		return nil, fmt.Errorf("graphs has to describe core, raw and int8, and nothing else")
	}
	graphs, kinds := map[string]declared{}, map[string]string{}
	for _, kind := range graphKinds {
		d, err := readDeclared(document[kind], kind)
		if err != nil {
			return nil, err
		}
		if other, taken := kinds[d.File]; taken {
			return nil, fmt.Errorf("graphs: %s and %s are of one file, %q", other, kind, d.File)
		}
		graphs[kind], kinds[d.File] = d, kind
	}
	return graphs, nil
}

func readDeclared(value any, kind string) (d declared, err error) {
	where := "graphs." + kind
	entry, ok := value.(map[string]any)
	if !ok {
		return d, fmt.Errorf("%s is not an object", where)
	}
	if d.File, ok = entry["file"].(string); !ok || !filePattern.MatchString(d.File) {
		return d, fmt.Errorf("%s names %.80q, which is not a file name of a graph", where, d.File)
	}
	if operators, there := entry["operators"]; there && !areOperators(operators) {
		return d, fmt.Errorf("%s: operators has to name 1 to %d operators, and how many there are of each, 1 at least", where, mostOperators)
	}
	if d.Inputs, err = readPorts(entry, "inputs", where); err != nil {
		return d, err
	}
	if d.Outputs, err = readPorts(entry, "outputs", where); err != nil {
		return d, err
	}
	seen := slices.Clone(contractNames[kind])
	for _, p := range slices.Concat(d.Inputs, d.Outputs) {
		if slices.Contains(seen, p.Name) {
			return d, fmt.Errorf("%s declares the port %.80q twice, or it is one that every such graph has", where, p.Name)
		}
		seen = append(seen, p.Name)
	}
	return d, nil
}

func areOperators(value any) bool {
	operators, ok := value.(map[string]any)
	if !ok || len(operators) < 1 || len(operators) > mostOperators {
		return false
	}
	for name, present := range operators {
		if _, ok := count(present); !ok || !isPortName(name) {
			return false
		}
	}
	return true
}

func readPorts(entry map[string]any, key, where string) (ports []port, err error) {
	value, there := entry[key]
	if !there {
		return nil, nil
	}
	list, ok := value.([]any)
	if !ok || len(list) > mostPorts {
		return nil, fmt.Errorf("%s: %s is not a list of at most %d ports", where, key, mostPorts)
	}
	for index, value := range list {
		p, ok := readPort(value)
		if !ok {
			return nil, fmt.Errorf("%s: %s[%d] is not a port: a name, a dtype of %s, and a shape of at most %d sizes",
				where, key, index, strings.Join(portTypes, ", "), mostSizes)
		}
		ports = append(ports, p)
	}
	return ports, nil
}

func readPort(value any) (p port, ok bool) {
	entry, _ := value.(map[string]any)
	if p.Name, ok = entry["name"].(string); !ok || !isPortName(p.Name) {
		return p, false
	}
	if p.DType, ok = entry["dtype"].(string); !ok || !slices.Contains(portTypes, p.DType) {
		return p, false
	}
	sizes, ok := entry["shape"].([]any)
	if !ok || len(sizes) > mostSizes {
		return p, false
	}
	for _, size := range sizes {
		if number, ok := count(size); ok {
			p.Shape = append(p.Shape, number)
		} else if size == "batch" || size == "?" {
			p.Shape = append(p.Shape, size)
		} else {
			return p, false
		}
	}
	return p, true
}

func isPortName(name string) bool {
	return name != "" && utf8.RuneCountInString(name) <= mostNameLetters
}

// count returns a number that is written as a whole one, from 1.
func count(value any) (int64, bool) {
	text, _ := value.(json.Number)
	number, err := strconv.ParseInt(string(text), 10, 64)
	return number, err == nil && number >= 1 && number <= mostCount
}

// decodeAny decodes one JSON value and keeps its numbers as they are written.
func decodeAny(content []byte) (value any, err error) {
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.UseNumber()
	if err = decoder.Decode(&value); err == nil {
		if _, more := decoder.Token(); more != io.EOF {
			err = fmt.Errorf("there is more than one value")
		}
	}
	return value, err
}
