package dwcp

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	manifestName  = "MANIFEST.json"
	signatureName = "MANIFEST.json.sig"
	goldenName    = "golden.json"

	manifestSchema = 1
	metadataSchema = 1

	defaultGapMultiple = 5.0

	mostProblems = 10   // that a message names
	mostMessage  = 1000 // bytes of one problem
)

// version is a published version whose files are what the manifest says, as far as they are needed to forecast. What it holds are the
// very bytes that were hashed: nothing is read a second time.
type version struct {
	name        string
	folder      string
	declared    declared
	graph       []byte
	golden      []byte
	gapMultiple float64
	scale       [targets]float64 // standard deviation of each target in training
	measured    [targets]bool    // the targets that it forecasts: the others were never measured in its training
	horizons    horizons
}

type manifest struct {
	Schema  json.RawMessage      `json:"schema"`
	Version string               `json:"version"`
	Number  int64                `json:"number"` // only rises; 0 where its publication did not make it live
	Files   map[string]fileEntry `json:"files"`
}

type fileEntry struct {
	SHA256 string `json:"sha256"`
	Bytes  int64  `json:"bytes"`
}

type metadata struct {
	Version     string   `json:"version"`
	WindowRows  int      `json:"window_rows"`
	Targets     []string `json:"targets"`
	GapMultiple *float64 `json:"gap_multiple"`
	Scalers     struct {
		Mean   []float64 `json:"y_mean"`
		Scale  []float64 `json:"y_scale"`
		Fitted []bool    `json:"y_fitted"`
	} `json:"scaler_params"`
	ForecastTargets *[]string `json:"forecast_targets"`
	Performance     struct {
		Targets map[string]struct {
			Windows *int `json:"windows"`
		} `json:"targets"`
	} `json:"performance_metrics"`
}

// openVersion verifies a version's folder: signature if there is a key, then the manifest, then each file. Its error is a *VersionError.
func openVersion(models *os.Root, name string, key ed25519.PublicKey, graph Graph) (*version, error) {
	v := &version{name: name, folder: filepath.Join(models.Name(), name)}
	root, err := models.OpenRoot(name)
	if err != nil {
		return nil, v.refused(withoutPath(name, err).Error())
	}
	defer root.Close()
	content, err := readManifest(root, key)
	if err != nil {
		return nil, v.refused(err.Error())
	}
	m, err := parseManifest(content, name)
	if err != nil {
		return nil, v.refused(err.Error())
	}
	contents, problems := m.check(root, map[string]int64{goldenName: mostDocumentBytes, metadataName(name): mostDocumentBytes})
	if len(problems) > 0 {
		return nil, v.refused(problems...)
	}
	v.golden = contents[goldenName]
	if err := v.readMetadata(contents[metadataName(name)], graph); err != nil {
		return nil, v.refused(err.Error())
	}
	entry, listed := m.Files[v.declared.File]
	if !listed {
		return nil, v.refused(fmt.Sprintf("%s does not name %s", manifestName, v.declared.File))
	}
	var sum string // again: these are the very bytes that are loaded
	if v.graph, sum, err = readPlain(root, v.declared.File, mostGraphBytes); err != nil {
		return nil, v.refused(err.Error())
	} else if sum != entry.SHA256 {
		return nil, v.refused(fmt.Sprintf("%q has changed since it was verified", v.declared.File))
	}
	return v, nil
}

func (v *version) refused(problems ...string) *VersionError {
	shown := slices.Clone(problems[:min(len(problems), mostProblems)])
	for index := range shown {
		shown[index] = cut(shown[index])
	}
	if more := len(problems) - len(shown); more > 0 {
		shown = append(shown, fmt.Sprintf("there are %d more problems", more))
	}
	return &VersionError{Version: v.name, Folder: v.folder, Problems: shown}
}

func metadataName(version string) string { return "model_metadata_" + version + ".json" }

func readManifest(root *os.Root, key ed25519.PublicKey) ([]byte, error) {
	content, _, err := readPlain(root, manifestName, mostManifestBytes)
	if err != nil || key == nil {
		return content, err
	}
	line, _, err := readPlain(root, signatureName, mostSignatureBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("it is not signed (%s is missing), and a public key is given", signatureName)
	} else if err != nil {
		return nil, err
	}
	if problem := signatureProblem(key, content, line); problem != "" {
		return nil, fmt.Errorf("%s %s", signatureName, problem)
	}
	return content, nil
}

func parseManifest(content []byte, name string) (*manifest, error) {
	m := &manifest{}
	if err := json.Unmarshal(content, m); err != nil {
		return nil, fmt.Errorf("%s is not a manifest (%w)", manifestName, err)
	}
	schema, err := wholeNumber(m.Schema, "schema")
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", manifestName, err)
	case schema > manifestSchema:
		return nil, fmt.Errorf("%s was written by a newer release (schema %d, this one reads %d)", manifestName, schema, manifestSchema)
	case m.Version != name:
		return nil, fmt.Errorf("%s is of version %.40q", manifestName, m.Version)
	case !isOrderNumber(m.Number):
		return nil, fmt.Errorf("%s has the number %d, which nobody can have given", manifestName, m.Number)
	}
	return m, nil
}

// check compares the folder with the manifest, and returns the contents of the wanted files, by name with the most bytes that each may have.
func (m *manifest) check(root *os.Root, wanted map[string]int64) (contents map[string][]byte, problems []string) {
	found, err := present(root)
	if err != nil {
		return nil, []string{err.Error()}
	}
	for name := range found {
		if _, listed := m.Files[name]; !listed && name != manifestName && name != signatureName {
			problems = append(problems, fmt.Sprintf("%.200q is not in %s", name, manifestName))
		}
	}
	for name := range wanted {
		if _, listed := m.Files[name]; !listed {
			problems = append(problems, fmt.Sprintf("%s does not name %s", manifestName, name))
		}
	}
	contents = map[string][]byte{}
	for name, entry := range m.Files {
		content, problem := entry.check(root, name, found, wanted[name])
		if problem != "" {
			problems = append(problems, problem)
		} else if wanted[name] > 0 {
			contents[name] = content
		}
	}
	slices.Sort(problems)
	return contents, problems
}

// check compares one file with its entry. Where most is over 0 it returns the content, which may have `most` bytes.
func (e fileEntry) check(root *os.Root, name string, found map[string]fs.FileMode, most int64) (content []byte, problem string) {
	if !fs.ValidPath(name) || name == "." || strings.ContainsAny(name, "\x00\\") {
		return nil, fmt.Sprintf("%s names %.200q, which is not a path inside the folder", manifestName, name)
	}
	mode, ok := found[name]
	if !ok {
		return nil, fmt.Sprintf("%q is missing", name)
	} else if !mode.IsRegular() {
		return nil, fmt.Sprintf("%q is not a regular file", name)
	}
	var sum string
	var err error
	if info, failed := root.Lstat(name); failed == nil && info.Size() != e.Bytes {
		return nil, fmt.Sprintf("%q is not what was published (%d bytes instead of %d)", name, info.Size(), e.Bytes)
	}
	if most > 0 {
		content, sum, err = readPlain(root, name, most)
	} else {
		sum, err = hashPlain(root, name)
	}
	if err != nil {
		return nil, err.Error()
	}
	if sum != e.SHA256 {
		return nil, fmt.Sprintf("%q is not what was published (its SHA-256 differs)", name)
	}
	return content, ""
}

func (v *version) readMetadata(content []byte, graph Graph) error {
	m, file := metadata{}, metadataName(v.name)
	entries, err := m.read(content)
	if err != nil {
		return fmt.Errorf("%s cannot be read (%s)", file, cut(err.Error()))
	}
	schema, err := wholeNumber(entries["schema"], "schema")
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if features, there := entries["feature_version"]; there { // any: the graph has its features inside
		if _, err := wholeNumber(features, "feature_version"); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	if encoder, there := entries["encoder"]; there && !bytes.HasPrefix(bytes.TrimSpace(encoder), []byte{'"'}) {
		return fmt.Errorf("%s: encoder is not a name", file)
	}
	v.gapMultiple = defaultGapMultiple
	if m.GapMultiple != nil {
		v.gapMultiple = *m.GapMultiple
	}
	switch {
	case schema > metadataSchema:
		return fmt.Errorf("%s was written by a newer release (schema %d, this one reads %d)", file, schema, metadataSchema)
	case m.Version != v.name:
		return fmt.Errorf("%s is of version %.40q", file, m.Version)
	case m.WindowRows != WindowRows:
		return fmt.Errorf("%s has windows of %d rows, this client of %d", file, m.WindowRows, WindowRows)
	case !slices.Equal(m.Targets, targetNames):
		return fmt.Errorf("%s has the targets %.200q, this client knows %q", file, m.Targets, targetNames)
	case m.ForecastTargets != nil && slices.ContainsFunc(*m.ForecastTargets, func(t string) bool { return !slices.Contains(targetNames, t) }):
		return fmt.Errorf("%s: forecast_targets is not a list of some of %q", file, targetNames)
	case !(v.gapMultiple > 1):
		return fmt.Errorf("%s has a gap_multiple of %v, which must be over 1", file, v.gapMultiple)
	case len(m.Scalers.Scale) != targets || slices.ContainsFunc(m.Scalers.Scale, func(s float64) bool { return !(s > 0) }):
		return fmt.Errorf("%s: the scaler y needs %d scales over 0", file, targets)
	}
	v.declared = undeclared(graph, v.name)
	var graphs map[string]declared
	if content, there := entries["graphs"]; there { // missing in versions of older releases
		if graphs, err = readGraphs(content); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		v.declared = graphs[graph.kind()]
	}
	if content, there := entries["forecast"]; there { // missing in versions that forecast only the next row
		if v.horizons, err = readHorizons(content, graphs); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	copy(v.scale[:], m.Scalers.Scale)
	for at, name := range targetNames {
		v.measured[at] = m.forecasts(at, name)
	}
	return nil
}

// read decodes the entries that the structure names, letter by letter, and returns all of them.
func (m *metadata) read(content []byte) (map[string]json.RawMessage, error) {
	entries, named := map[string]json.RawMessage{}, map[string]json.RawMessage{}
	if err := json.Unmarshal(content, &entries); err != nil {
		return nil, err
	}
	for _, key := range []string{
		"version", "window_rows", "targets", "gap_multiple", "scaler_params", "forecast_targets", "performance_metrics",
	} {
		if entry, there := entries[key]; there {
			named[key] = entry
		}
	}
	exact, err := json.Marshal(named)
	if err != nil {
		return nil, err
	}
	return entries, json.Unmarshal(exact, m)
}

// cut leaves out the middle of a long message.
func cut(message string) string {
	if len(message) <= mostMessage {
		return message
	}
	return strings.ToValidUTF8(message[:mostMessage-100]+" ... "+message[len(message)-90:], "")
}

// forecasts reports whether the version forecasts a target. Older releases did not write it: a target that was never measured has a mean of 0
// and no scale of its own there, as one that was always exactly 0 has; of these two, only the former has no judged window either.
func (m *metadata) forecasts(at int, name string) bool {
	if m.ForecastTargets != nil {
		return slices.Contains(*m.ForecastTargets, name)
	}
	if len(m.Scalers.Mean) != targets || len(m.Scalers.Fitted) != targets || m.Scalers.Fitted[at] || m.Scalers.Mean[at] != 0 {
		return true
	}
	windows := m.Performance.Targets[name].Windows
	return windows == nil || *windows != 0
}
