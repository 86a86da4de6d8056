package dwcp

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func rawFile(version string) string { return undeclared(Raw, version).File }

// damages are ways in which a new version can be wrong, and what is said about each.
var damages = []struct {
	name, words string
	damage      func(t *testing.T, folder, version string)
}{
	{"changed graph", ".raw.onnx\" is not what was published (its SHA-256 differs)", func(t *testing.T, f, v string) {
		rewrite(t, f, rawFile(v), func(c []byte) []byte { c[len(c)/2] ^= 1; return c })
	}},
	{"truncated graph", ".raw.onnx\" is not what was published (", func(t *testing.T, f, v string) {
		rewrite(t, f, rawFile(v), func(c []byte) []byte { return c[:len(c)/2] })
	}},
	{"truncated graph, sealed", "the graph cannot be loaded", func(t *testing.T, f, v string) {
		rewrite(t, f, rawFile(v), func(c []byte) []byte { return c[:len(c)/2] })
		seal(t, f)
	}},
	{"empty graph, sealed", "the graph cannot be loaded", func(t *testing.T, f, v string) {
		rewrite(t, f, rawFile(v), func([]byte) []byte { return nil })
		seal(t, f)
	}},
	{"the core graph in its place, sealed", "the graph lacks the input \"time_s\" float64 [batch 30]", func(t *testing.T, f, v string) {
		core, err := os.ReadFile(filepath.Join(f, "bandwidth_lstm_"+v+".onnx"))
		must(t, err)
		rewrite(t, f, rawFile(v), func([]byte) []byte { return core })
		seal(t, f)
	}},
	{"the other version's graph, sealed", "the graph says that it is of version", func(t *testing.T, f, v string) {
		other := expected(t).First
		graph, err := os.ReadFile(filepath.Join(f, "..", other, rawFile(other)))
		must(t, err)
		rewrite(t, f, rawFile(v), func([]byte) []byte { return graph })
		seal(t, f)
	}},
	{"other golden forecasts, sealed", "the graph differs from golden.json in 1 of ", func(t *testing.T, f, _ string) {
		edit(t, f, goldenName, func(d map[string]any) {
			d["raw"].(map[string]any)["samples"].([]any)[0].(map[string]any)["forecast"].([]any)[1] = 1e6
		})
		seal(t, f)
	}},
	{"another golden forecast ahead, sealed", ", rtt_ms of horizon 3: ", func(t *testing.T, f, _ string) {
		editSamples(t, f, 1, func(s map[string]any) { s["ahead"].([]any)[2].([]any)[1].([]any)[2] = 1e6 })
	}},
	{"a golden sample without a context, sealed", "has another shape than a window", func(t *testing.T, f, _ string) {
		editSamples(t, f, 1, func(s map[string]any) { delete(s, "context") })
	}},
	{"a golden sample with the context of another version, sealed", "has another shape than a window", func(t *testing.T, f, _ string) {
		editSamples(t, f, 1, func(s map[string]any) { s["context"] = s["context"].([]any)[:20] })
	}},
	{"a golden sample without a horizon, sealed", "has another shape than a window", func(t *testing.T, f, _ string) {
		editSamples(t, f, 1, func(s map[string]any) { s["ahead"] = s["ahead"].([]any)[:2] })
	}},
	{"a golden sample without an upper forecast, sealed", "has another shape than a window", func(t *testing.T, f, _ string) {
		editSamples(t, f, 1, func(s map[string]any) { s["ahead"].([]any)[0].([]any)[3].([]any)[2] = nil })
	}},
	{"horizons that the graphs do not have, sealed", "graphs.core does not declare the input \"context\" float32 [batch 20]", func(t *testing.T, f, v string) {
		edit(t, f, metadataName(v), func(d map[string]any) { d["forecast"].(map[string]any)["horizons_rows"] = []int{1, 5} })
		seal(t, f)
	}},
	{"horizons that are declared and not there, sealed", "the graph has the output \"ahead\" float32 [batch 3 4 4] instead of", func(t *testing.T, f, v string) {
		edit(t, f, metadataName(v), func(d map[string]any) {
			d["forecast"].(map[string]any)["horizons_rows"] = []int{1, 5}
			for _, graph := range d["graphs"].(map[string]any) {
				graph.(map[string]any)["inputs"] = []port{{contextName, "float32", []any{"batch", 20}}}
				graph.(map[string]any)["outputs"] = []port{{aheadName, "float32", []any{"batch", 2, 4, 4}}}
			}
		})
		editSamples(t, f, mostSamples, func(s map[string]any) {
			s["context"], s["ahead"] = s["context"].([]any)[:20], s["ahead"].([]any)[:2]
		})
	}},
	{"the graph of a version without horizons in its place, sealed", "the graph lacks the output \"ahead\" float32 [batch 3 4 4]", func(t *testing.T, f, v string) {
		name := expected(t).NextRow
		graph, err := os.ReadFile(filepath.Join(fixture(t), "next_row", name, rawFile(name)))
		must(t, err)
		rewrite(t, f, rawFile(v), func([]byte) []byte { return graph })
		seal(t, f)
	}},
	{"a tolerance that proves nothing, sealed", "asks for a tolerance of 1e+09 for throughput_mbps", func(t *testing.T, f, _ string) {
		edit(t, f, goldenName, func(d map[string]any) {
			d["raw"].(map[string]any)["tolerance"].(map[string]any)["absolute"].([]any)[0] = 1e9
		})
		seal(t, f)
	}},
	{"no raw samples, sealed", "golden.json has no raw samples: the version was published by an older release", func(t *testing.T, f, _ string) {
		edit(t, f, goldenName, func(d map[string]any) { delete(d, "raw") })
		seal(t, f)
	}},
	{"no samples, sealed", "golden.json has 0 raw samples, 32 to 256 are needed", func(t *testing.T, f, _ string) {
		edit(t, f, goldenName, func(d map[string]any) { d["raw"].(map[string]any)["samples"] = []any{} })
		seal(t, f)
	}},
	{"a relative tolerance that proves nothing, sealed", "and a relative one of at most 1e-05", func(t *testing.T, f, _ string) {
		edit(t, f, goldenName, func(d map[string]any) { d["raw"].(map[string]any)["tolerance"].(map[string]any)["relative"] = 1 })
		seal(t, f)
	}},
	{"a sample of another shape, sealed", "has another shape than a window", func(t *testing.T, f, _ string) {
		edit(t, f, goldenName, func(d map[string]any) {
			sample := d["raw"].(map[string]any)["samples"].([]any)[2].(map[string]any)
			sample["telemetry"] = sample["telemetry"].([]any)[1:]
		})
		seal(t, f)
	}},
	{"golden.json deep in brackets, sealed", "golden.json cannot be read", func(t *testing.T, f, _ string) {
		rewrite(t, f, goldenName, func([]byte) []byte { return bytes.Repeat([]byte("["), 1<<20) })
		seal(t, f)
	}},
	{"metadata of another version, sealed", "is of version", func(t *testing.T, f, v string) {
		edit(t, f, metadataName(v), func(d map[string]any) { d["version"] = "v20200101_000000" })
		seal(t, f)
	}},
	{"metadata with other targets, sealed", "has the targets", func(t *testing.T, f, v string) {
		edit(t, f, metadataName(v), func(d map[string]any) { d["targets"] = []string{"rtt_ms"} })
		seal(t, f)
	}},
	{"metadata with windows of 60, sealed", "has windows of 60 rows, this client of 30", func(t *testing.T, f, v string) {
		edit(t, f, metadataName(v), func(d map[string]any) { d["window_rows"] = 60 })
		seal(t, f)
	}},
	{"metadata of a newer release, sealed", "was written by a newer release", func(t *testing.T, f, v string) {
		edit(t, f, metadataName(v), func(d map[string]any) { d["schema"] = 99 })
		seal(t, f)
	}},
	{"an output that is declared and not there, sealed", "the graph lacks the output \"spread\" float32 [batch 4]", func(t *testing.T, f, v string) {
		edit(t, f, metadataName(v), func(d map[string]any) {
			raw := d["graphs"].(map[string]any)["raw"].(map[string]any)
			raw["outputs"] = append(raw["outputs"].([]any), port{"spread", "float32", []any{"batch", 4}})
		})
		seal(t, f)
	}},
	{"a graph in another folder, sealed", "which is not a file name of a graph", func(t *testing.T, f, v string) {
		edit(t, f, metadataName(v), func(d map[string]any) {
			d["graphs"].(map[string]any)["raw"].(map[string]any)["file"] = "../other.onnx"
		})
		seal(t, f)
	}},
	{"a graph that is not listed, sealed", "MANIFEST.json does not name other.onnx", func(t *testing.T, f, v string) {
		edit(t, f, metadataName(v), func(d map[string]any) { d["graphs"].(map[string]any)["raw"].(map[string]any)["file"] = "other.onnx" })
		seal(t, f)
	}},
	{"a manifest that was altered", "does not fit: what it signs was changed", func(t *testing.T, f, _ string) {
		edit(t, f, manifestName, func(d map[string]any) { d["reason"] = "another" })
	}},
	{"no signature", "it is not signed (MANIFEST.json.sig is missing)", func(t *testing.T, f, _ string) {
		must(t, os.Remove(filepath.Join(f, signatureName)))
	}},
	{"truncated signature", "holds 30 bytes instead of 64", func(t *testing.T, f, _ string) {
		rewrite(t, f, signatureName, func(c []byte) []byte { return c[:40] })
	}},
	{"signature that is a pipe", "is not a regular file", func(t *testing.T, f, _ string) {
		must(t, os.Remove(filepath.Join(f, signatureName)))
		must(t, syscall.Mkfifo(filepath.Join(f, signatureName), 0o644))
	}},
	{"huge signature", "more than any such file", func(t *testing.T, f, _ string) {
		must(t, os.Truncate(filepath.Join(f, signatureName), 1<<40))
	}},
	{"no manifest", "MANIFEST.json\": no such file", func(t *testing.T, f, _ string) {
		must(t, os.Remove(filepath.Join(f, manifestName)))
	}},
	{"huge manifest", "more than any such file", func(t *testing.T, f, _ string) {
		must(t, os.Truncate(filepath.Join(f, manifestName), 1<<40))
	}},
	{"manifest that is no JSON, signed", "MANIFEST.json is not a manifest", func(t *testing.T, f, _ string) {
		rewrite(t, f, manifestName, func([]byte) []byte { return []byte("{\"files\": 7}") })
		sign(t, f)
	}},
	{"manifest of a newer release, signed", "was written by a newer release (schema 2", func(t *testing.T, f, _ string) {
		edit(t, f, manifestName, func(d map[string]any) { d["schema"] = 2 })
		sign(t, f)
	}},
	{"manifest of another version, signed", "is of version \"v20200101_000000\"", func(t *testing.T, f, _ string) {
		edit(t, f, manifestName, func(d map[string]any) { d["version"] = "v20200101_000000" })
		sign(t, f)
	}},
	{"a file that is not listed", "\"extra\" is not in MANIFEST.json", func(t *testing.T, f, _ string) {
		must(t, os.WriteFile(filepath.Join(f, "extra"), nil, 0o644))
	}},
	{"a missing file", "golden.json\" is missing", func(t *testing.T, f, _ string) {
		must(t, os.Remove(filepath.Join(f, goldenName)))
	}},
	{"a file that is a link out of the folder", "\"golden.json\" is not a regular file", func(t *testing.T, f, _ string) {
		must(t, os.Rename(filepath.Join(f, goldenName), filepath.Join(f, "..", "elsewhere")))
		must(t, os.Symlink("../elsewhere", filepath.Join(f, goldenName)))
	}},
	{"a path out of the folder, signed", "names \"../CURRENT\", which is not a path inside the folder", names("../CURRENT")},
	{"an absolute path, signed", "names \"/etc/passwd\", which is not a path inside the folder", names("/etc/passwd")},
	{"a folder, signed", "names \".\", which is not a path inside the folder", names(".")},
	{"a path with a NUL, signed", "which is not a path inside the folder", names("a\x00b")},
}

// editSamples changes the first raw samples of a version, at most so many, and seals it.
func editSamples(t *testing.T, folder string, most int, change func(map[string]any)) {
	edit(t, folder, goldenName, func(d map[string]any) {
		samples := d["raw"].(map[string]any)["samples"].([]any)
		for _, sample := range samples[:min(most, len(samples))] {
			change(sample.(map[string]any))
		}
	})
	seal(t, folder)
}

func names(path string) func(*testing.T, string, string) {
	return func(t *testing.T, folder, _ string) {
		edit(t, folder, manifestName, func(d map[string]any) {
			d["files"].(map[string]any)[path] = map[string]any{"sha256": strings.Repeat("0", 64), "bytes": 0}
		})
		sign(t, folder)
	}
}

// A new version that is not what was published is refused and named, a client that runs keeps the one before, and none opens on it.
func TestAWrongVersionIsRefused(t *testing.T) {
	document, key := expected(t), publicKey(t)
	for _, d := range damages {
		t.Run(d.name, func(t *testing.T) {
			folder := copied(t)
			client := open(t, folder, Options{PublicKey: key})
			d.damage(t, filepath.Join(folder, document.Second), document.Second)
			setCurrent(t, folder, document.Second)
			swapped, err := client.Refresh()
			var refusal *VersionError
			if swapped || !errors.As(err, &refusal) || refusal.Version != document.Second || !strings.Contains(err.Error(), d.words) {
				t.Fatalf("%v instead of %q", err, d.words)
			}
			forecast, err := client.Predict(context.Background(), document.Cases[0].Rows)
			if err != nil || forecast.Version != document.First {
				t.Errorf("forecast by %q (%v)", forecast.Version, err)
			}
			if _, err := Open(folder, Options{PublicKey: key}); !errors.As(err, &refusal) {
				t.Errorf("a client opened on it: %v", err)
			}
		})
	}
}

// A signature by another key is refused; without a key an unsigned version is taken.
func TestKeys(t *testing.T) {
	folder := copied(t)
	other, _, err := ed25519.GenerateKey(nil)
	must(t, err)
	if _, err := Verify(folder, Options{PublicKey: other}); err == nil || !strings.Contains(err.Error(), "another key has signed it") {
		t.Error(err)
	}
	if _, err := Verify(folder, Options{PublicKey: other[:5]}); err == nil || !strings.Contains(err.Error(), "5 bytes instead of 32") {
		t.Error(err)
	}
	must(t, os.Remove(filepath.Join(folder, expected(t).First, signatureName)))
	if _, err := Verify(folder, Options{PublicKey: publicKey(t)}); err == nil || !strings.Contains(err.Error(), "it is not signed") {
		t.Error(err)
	}
	version, err := Verify(folder, Options{})
	if err != nil || version != expected(t).First {
		t.Error(version, err)
	}
}

// Whatever stands in CURRENT, the error says so, and a running client keeps its version.
func TestCurrent(t *testing.T) {
	for content, words := range map[string]string{
		"":                         "CURRENT names \"\", which is not a version",
		"../../etc":                "which is not a version",
		"v20990101_000000":         "\"v20990101_000000\": no such file",
		"v20990101_000000\nsecond": "which is not a version",
		strings.Repeat("x", 100):   "more than any such file",
	} {
		folder := copied(t)
		client := open(t, folder, Options{})
		must(t, os.WriteFile(filepath.Join(folder, currentName), []byte(content), 0o644))
		if _, err := client.Refresh(); err == nil || !strings.Contains(err.Error(), words) || client.Version() != expected(t).First {
			t.Errorf("%q: %v", content, err)
		}
		if _, err := Open(folder, Options{}); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%q: %v", content, err)
		}
	}
	fixture(t)
	if _, err := Open(t.TempDir(), Options{}); err == nil || !strings.Contains(err.Error(), "no version has been published here yet") {
		t.Error(err)
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none"), Options{}); err == nil || !strings.Contains(err.Error(), "the models folder cannot be opened") {
		t.Error(err)
	}
}
