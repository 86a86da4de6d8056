package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fixture is what tests/project/test_go_client.py makes.
func fixture(t *testing.T) string {
	t.Helper()
	folder := os.Getenv("CLIENT_TEST_FOLDER")
	if folder == "" {
		t.Skip("CLIENT_TEST_FOLDER is not set: run by pytest tests/project/test_go_client.py, which makes the models")
	}
	return folder
}

func called(input io.Reader, arguments ...string) (code int, stdout, stderr string) {
	var out, told strings.Builder
	code = run(context.Background(), arguments, input, &out, &told)
	return code, out.String(), told.String()
}

// record is one line of a link; its last part is put in as it is.
func record(node string, at int, more string) string {
	return fmt.Sprintf(`{"timestamp":%d,"node_id":%q,"peer_id":"p","rtt_ms":30,"throughput_mbps":400%s}`+"\n", 1_795_000_000+60*at, node, more)
}

func lines(node string, count int) (all string) {
	for at := range count {
		all += record(node, at, "")
	}
	return all
}

// Wrong usage is exit code 2 and says what to give.
func TestUsage(t *testing.T) {
	for words, arguments := range map[string][]string{
		"-models is missing":     {},
		"raw or int8":            {"-models", "x", "-graph", "int4"},
		"is no column":           {"-models", "x", "-link-key", "node_id,colour"},
		"one input file is read": {"-models", "x", "a", "b"},
		"flag provided but not":  {"-modles", "x"},
	} {
		if code, _, told := called(nil, arguments...); code != exitUsage || !strings.Contains(told, words) {
			t.Errorf("%q: %d %s", arguments, code, told)
		}
	}
	if code, _, told := called(nil, "-h"); code != exitDone || !strings.Contains(told, "Exit codes: 0 done, 1") {
		t.Errorf("%d %s", code, told)
	}
}

// A key file that cannot be used is exit code 1, before anything is loaded.
func TestPublicKey(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "key.pem")
	for content, words := range map[string]string{
		"":  "holds no key in PEM form",
		"x": "holds no key in PEM form",
		"-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n": "is a private key; give the public one",
		"-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----\n":   "holds no public key",
		// An RSA key of 512 bits.
		"-----BEGIN PUBLIC KEY-----\nMFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAKj34GkxFhD90vcNLYLInFEX6Ppy1tPf\n" +
			"9Cnzj4p4WGeKLs1Pt8QuKUpRKfFLfRYC9AIKjbJTWit+CqvjWYzvQwECAwEAAQ==\n-----END PUBLIC KEY-----\n": "is a key of another type (*rsa.PublicKey)",
	} {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if code, _, told := called(nil, "-models", folder, "-public-key", path); code != exitModel || !strings.Contains(told, words) {
			t.Errorf("%q: %d %s", content, code, told)
		}
	}
	if code, _, told := called(nil, "-models", folder, "-public-key", folder+"/none"); code != exitModel || !strings.Contains(told, "cannot be read") {
		t.Errorf("%d %s", code, told)
	}
}

// A forecast for each link, in the order of their first row, mixed as they are; a link with too few rows is exit code 4 and named.
func TestLinks(t *testing.T) {
	models := filepath.Join(fixture(t), "models")
	mixed := ""
	for at := range 200 {
		mixed += record("long", at, "") + record("also", at, `,"link_type":"lte","region":"eu-1"`)
	}
	code, out, told := called(strings.NewReader(mixed+"\n"+lines("short", 2)), "-models", models)
	if code != exitTooFew || !strings.Contains(told, "no forecast for link short|p|: dwcp: 2 rows, a forecast needs 3") {
		t.Errorf("%d %s", code, told)
	}
	forecasts := strings.Split(strings.TrimSpace(out), "\n")
	if len(forecasts) != 2 {
		t.Fatal(out)
	}
	for at, node := range []string{"long", "also"} {
		line := map[string]any{}
		if err := json.Unmarshal([]byte(forecasts[at]), &line); err != nil || line["node_id"] != node || line["timestamp"] != 1_795_000_000+60*199.0 {
			t.Errorf("%v %v", line, err)
		}
		if _, ok := line["packet_loss"].(float64); !ok {
			t.Errorf("%v", line)
		}
		ahead, _ := line["ahead"].([]any)
		if len(ahead) != 3 || line["coverage"] != 0.9 {
			t.Fatal(forecasts[at])
		}
		for index, rows := range []float64{1, 5, 15} {
			horizon := ahead[index].(map[string]any)
			rtt := horizon["rtt_ms"].(map[string]any)
			lower, median, upper, mean := rtt["lower"].(float64), rtt["median"].(float64), rtt["upper"].(float64), rtt["mean"].(float64)
			if horizon["rows"] != rows || !(0 <= lower && lower <= median && median <= upper && mean >= 0) || index == 0 && median != line["rtt_ms"] {
				t.Errorf("%v", horizon)
			}
		}
	}
	// The same rows alone, and only the newest of them, give the same line.
	alone := ""
	for at := 200 - 48; at < 200; at++ {
		alone += record("long", at, "")
	}
	if _, again, _ := called(strings.NewReader(alone), "-models", models, "-"); again != forecasts[0]+"\n" {
		t.Errorf("%s became %s", forecasts[0], again)
	}
	if code, out, _ := called(strings.NewReader(lines("a", 20)+lines("b", 60)), "-models", models, "-link-key", ""); code != exitDone || !strings.Contains(out, "version") {
		t.Errorf("one series: %d %s", code, out)
	}
}

// What is no telemetry is exit code 3 with file and line, and nothing is printed.
func TestInput(t *testing.T) {
	models := filepath.Join(fixture(t), "models")
	good := lines("a", 30)
	for words, input := range map[string]string{
		"standard input: it is empty":                               "",
		"standard input: line 31: packet_loss is 2, allowed 0 to 1": good + record("a", 30, `,"packet_loss":2`),
		"standard input: line 31: unexpected end of JSON":           good + "{\n",
		"standard input: line 31: a JSON object is needed":          good + "[]\n",
		"standard input: line 31: rtt_ms is a JSON string":          good + `{"rtt_ms":"x"}`,
		"standard input: line 31: timestamp is missing":             good + "{}\n",
		"standard input: line 31: longer than 1048576 bytes":        good + strings.Repeat("x", 1<<20+1),
	} {
		if code, out, told := called(strings.NewReader(input), "-models", models); code != exitInput || out != "" || !strings.Contains(told, words) {
			t.Errorf("%s: %d %q %s", words, code, out, told)
		}
	}
	if code, _, told := called(nil, "-models", models, "/no/such/file"); code != exitInput || !strings.Contains(told, "no such file") {
		t.Errorf("%d %s", code, told)
	}
	if code, _, told := called(nil, "-models", models, models); code != exitInput || !strings.Contains(told, "is a directory") {
		t.Errorf("%d %s", code, told)
	}
	broken := io.MultiReader(strings.NewReader(good), failing{})
	if code, out, told := called(broken, "-models", models); code != exitInput || out != "" || !strings.Contains(told, "the cable is out") {
		t.Errorf("%d %q %s", code, out, told)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("the cable is out") }

// -verify says what the folder is, and names what is wrong with exit code 1.
func TestVerify(t *testing.T) {
	source := filepath.Join(fixture(t), "models")
	models := filepath.Join(t.TempDir(), "models")
	if err := os.CopyFS(models, os.DirFS(source)); err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(fixture(t), "keys", "dwcp-verify-key.pem")
	for _, graph := range []string{"raw", "int8"} {
		if code, out, _ := called(nil, "-models", models, "-public-key", key, "-graph", graph, "-verify"); code != exitDone || !strings.HasSuffix(out, ": sound and signed\n") {
			t.Errorf("%d %s", code, out)
		}
	}
	if code, out, _ := called(nil, "-models", models, "-verify"); code != exitDone || !strings.Contains(out, "the signature was not looked at") {
		t.Errorf("%d %s", code, out)
	}
	goldens, err := filepath.Glob(filepath.Join(models, "*", "golden.json"))
	if err != nil || len(goldens) != 2 {
		t.Fatal(goldens, err)
	}
	for _, path := range goldens {
		if err := os.WriteFile(path, []byte("{}"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if code, _, told := called(nil, "-models", models, "-verify"); code != exitModel || !strings.Contains(told, `"golden.json" is not what was published`) {
		t.Errorf("%d %s", code, told)
	}
}
