package dwcp

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

type metadataCase struct {
	Name    string          `json:"name"`
	Path    []string        `json:"path"`
	Value   json.RawMessage `json:"value"`
	Absent  bool            `json:"absent"`
	Refused string          `json:"refused"`
	Ahead   bool            `json:"ahead"` // a change of the other base: a version of two horizons
}

type metadataTable struct {
	Base  json.RawMessage `json:"base"`
	Ahead json.RawMessage `json:"ahead"`
	Cases []metadataCase  `json:"cases"`
}

func readTable(t *testing.T) metadataTable {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("testdata", "metadata.json"))
	must(t, err)
	table := metadataTable{}
	must(t, json.Unmarshal(content, &table))
	if len(table.Cases) < 50 {
		t.Fatal("the table is empty")
	}
	return table
}

// document returns metadata with one entry set to the case's value, or without it.
func (c metadataCase) document(t *testing.T, base json.RawMessage) []byte {
	t.Helper()
	document := map[string]any{}
	must(t, json.Unmarshal(base, &document))
	maps.Copy(document, map[string]any{
		"version": "v20260101_000000", "window_rows": WindowRows, "targets": targetNames,
		"scaler_params": map[string]any{"y_mean": []float64{1, 1, 1, 1}, "y_scale": []float64{1, 1, 1, 1}, "y_fitted": []bool{true, true, true, true}},
	})
	inside, last := document, c.Path[len(c.Path)-1]
	for _, key := range c.Path[:len(c.Path)-1] {
		inside = inside[key].(map[string]any)
	}
	if inside[last] = c.Value; c.Absent {
		delete(inside, last)
	}
	content, err := json.Marshal(document)
	must(t, err)
	// Marshal writes a number of the table as it is written there, since it is a RawMessage.
	return content
}

// What readers accept of metadata, one change each: the same table as tests/model/version/test_metadata.py.
func TestMetadataTable(t *testing.T) {
	table := readTable(t)
	for _, c := range table.Cases {
		for _, graph := range []Graph{Raw, Int8} {
			v, base := &version{name: "v20260101_000000"}, table.Base
			if c.Ahead {
				base = table.Ahead
			}
			err := v.readMetadata(c.document(t, base), graph)
			if (err == nil) != (c.Refused == "") {
				t.Errorf("%s: %v", c.Name, err)
			} else if err != nil && !strings.Contains(err.Error(), c.Refused) {
				t.Errorf("%s: %v instead of %q", c.Name, err, c.Refused)
			}
		}
	}
}

// The horizons of a version are read as they are written, and a version without the entry has none.
func TestHorizonsAreRead(t *testing.T) {
	table := readTable(t)
	c := metadataCase{Path: []string{"reason"}, Value: json.RawMessage(`"test"`)}
	for _, graph := range []Graph{Raw, Int8} {
		v := &version{name: "v20260101_000000"}
		must(t, v.readMetadata(c.document(t, table.Ahead), graph))
		if !slices.Equal(v.horizons.rows, []int{1, 15}) || v.horizons.coverage != 0.9 {
			t.Errorf("%+v", v.horizons)
		}
		v = &version{name: "v20260101_000000"}
		must(t, v.readMetadata(c.document(t, table.Base), graph))
		if v.horizons.rows != nil || v.horizons.coverage != 0 {
			t.Errorf("%+v", v.horizons)
		}
	}
}

// A raw graph has its features inside: a version with those of a later release is used.
func TestOtherFeaturesAreUsed(t *testing.T) {
	v := &version{name: "v20260101_000000"}
	c := metadataCase{Path: []string{"feature_version"}, Value: json.RawMessage("2")}
	must(t, v.readMetadata(c.document(t, readTable(t).Base), Raw))
}

// Whatever the metadata hold, a message about them fits in a log.
func TestMetadataMessagesAreShort(t *testing.T) {
	table, long := readTable(t), strings.Repeat("x", 100_000)
	outputs := make([]port, 100_000)
	for index := range outputs {
		outputs[index] = port{Name: fmt.Sprint("output_", index), DType: "float32", Shape: []any{"batch", 4}}
	}
	for path, value := range map[string]any{
		"graphs raw outputs": outputs, "graphs raw file": long, "graphs raw operators": map[string]int{long: 1}, "schema": long,
		"graphs raw inputs": []port{{Name: long}}, "feature_version": long, "version": long, "window_rows": long, "targets": []string{long},
		"forecast_targets": []string{long}, "encoder": []string{long}, "gap_multiple": long, "forecast": long,
		"forecast horizons_rows": []string{long}, "forecast coverage": long,
	} {
		content, err := json.Marshal(value)
		must(t, err)
		v := &version{name: "v20260101_000000"}
		c := metadataCase{Path: strings.Split(path, " "), Value: content}
		if err := v.readMetadata(c.document(t, table.Ahead), Raw); err == nil || len(err.Error()) > mostMessage {
			t.Errorf("%s: %.500v", path, err)
		}
	}
	v := &version{name: "v20260101_000000"}
	problems := make([]string, 1000)
	for index := range problems {
		problems[index] = long
	}
	if message := v.refused(problems...).Error(); len(message) > 12*mostMessage || !strings.Contains(message, "990 more problems") {
		t.Errorf("%d characters", len(message))
	}
}
