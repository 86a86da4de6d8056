package dwcp

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"math"
	"os"
	"path/filepath"
	"testing"
)

// What tests/project/test_go_client.py makes: a folder with models/ (two signed versions of one size and of three horizons, CURRENT names the
// first), next_row/ (a signed one that forecasts only the next row), full/ (one of the published size), partial/ (one that has never seen an
// RTT), older/ (one by a release whose graphs have no bounds), keys/, expected.json, partial.json and next_row.json.
const fixtureVariable = "CLIENT_TEST_FOLDER"

// expectedForecasts are those of both graphs. A number is nil if the target is not forecast; ahead is empty without horizons.
type expectedForecasts struct {
	Forecast  []*float64     `json:"forecast"` // nil if the newest run is too short
	Ahead     [][][]*float64 `json:"ahead"`
	Int8      []*float64     `json:"int8"`
	Int8Ahead [][][]*float64 `json:"int8_ahead"`
}

type expectedCase struct {
	Name string          `json:"name"`
	Rows []NetworkSample `json:"rows"`
	expectedForecasts
	Known *expectedKnown `json:"known"` // with a context; nil without horizons
	// A row lies far outside of training. The forecast is then the difference of large numbers, and float32 leaves its last digits open.
	Disturbed bool `json:"disturbed"`
}

type expectedKnown struct {
	Context [][]*float32 `json:"context"` // nil for what is not known
	expectedForecasts
}

func (k *expectedKnown) context() (known LinkContext) {
	for _, row := range k.Context {
		values := [targets]float32{}
		for target, value := range row {
			values[target] = float32(math.NaN())
			if value != nil {
				values[target] = *value
			}
		}
		known = append(known, values)
	}
	return known
}

type expectedDocument struct {
	First     string          `json:"first"`
	Second    string          `json:"second"`
	NextRow   string          `json:"next_row"`
	Horizons  []int           `json:"horizons"` // of the version that the cases are of
	Tolerance goldenTolerance `json:"tolerance"`
	Cases     []expectedCase  `json:"cases"`
}

// fixture gives the folder that the Python side made; the test is skipped where there is none.
func fixture(t testing.TB) string {
	t.Helper()
	folder := os.Getenv(fixtureVariable)
	if folder == "" {
		t.Skip(fixtureVariable + " is not set: run by pytest tests/project/test_go_client.py, which makes the models")
	}
	return folder
}

func expected(t testing.TB) expectedDocument { return expectedIn(t, "expected.json") }

func expectedIn(t testing.TB, name string) expectedDocument {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(fixture(t), name))
	must(t, err)
	document := expectedDocument{}
	must(t, json.Unmarshal(content, &document))
	return document
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// copied gives a models folder of the test's own.
func copied(t testing.TB) string {
	t.Helper()
	folder := filepath.Join(t.TempDir(), "models")
	must(t, os.CopyFS(folder, os.DirFS(filepath.Join(fixture(t), "models"))))
	return folder
}

// withNextRow gives a models folder of the test's own that also has the version that forecasts only the next row.
func withNextRow(t testing.TB) string {
	t.Helper()
	folder, name := copied(t), expected(t).NextRow
	must(t, os.CopyFS(filepath.Join(folder, name), os.DirFS(filepath.Join(fixture(t), "next_row", name))))
	return folder
}

func publicKey(t testing.TB) ed25519.PublicKey {
	t.Helper()
	key, err := ReadPublicKey(filepath.Join(fixture(t), "keys", "dwcp-verify-key.pem"))
	must(t, err)
	return key
}

func open(t testing.TB, folder string, options Options) *Client {
	t.Helper()
	client, err := Open(folder, options)
	must(t, err)
	t.Cleanup(func() { client.Close() })
	return client
}

// setCurrent replaces CURRENT as the daemon does: by a rename.
func setCurrent(t testing.TB, folder, version string) {
	t.Helper()
	partial := filepath.Join(folder, ".CURRENT.partial")
	must(t, os.WriteFile(partial, []byte(version+"\n"), 0o644))
	must(t, os.Rename(partial, filepath.Join(folder, "CURRENT")))
}

// rewrite replaces a file of a version.
func rewrite(t testing.TB, folder, name string, change func([]byte) []byte) {
	t.Helper()
	path := filepath.Join(folder, name)
	content, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path, change(content), 0o644))
}

// edit changes a JSON document of a version.
func edit(t testing.TB, folder, name string, change func(map[string]any)) {
	t.Helper()
	rewrite(t, folder, name, func(content []byte) []byte {
		document := map[string]any{}
		must(t, json.Unmarshal(content, &document))
		change(document)
		content, err := json.Marshal(document)
		must(t, err)
		return content
	})
}

// seal makes the manifest fit the files as they are now, and signs it with the fixture's own key: hashes and signature are right.
func seal(t testing.TB, folder string) {
	t.Helper()
	edit(t, folder, manifestName, func(document map[string]any) {
		for name, entry := range document["files"].(map[string]any) {
			content, err := os.ReadFile(filepath.Join(folder, name))
			must(t, err)
			sum := sha256.Sum256(content)
			entry.(map[string]any)["sha256"], entry.(map[string]any)["bytes"] = hex.EncodeToString(sum[:]), len(content)
		}
	})
	sign(t, folder)
}

func sign(t testing.TB, folder string) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(fixture(t), "keys", "dwcp-signing-key.pem"))
	must(t, err)
	block, _ := pem.Decode(content)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	must(t, err)
	manifest, err := os.ReadFile(filepath.Join(folder, manifestName))
	must(t, err)
	line := base64.StdEncoding.EncodeToString(ed25519.Sign(key.(ed25519.PrivateKey), manifest)) + "\n"
	must(t, os.WriteFile(filepath.Join(folder, signatureName), []byte(line), 0o644))
}
