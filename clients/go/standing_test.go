package dwcp

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// What is live, for every kind of choice: the same table as tests/model/registry/test_choice.py.
func TestStand(t *testing.T) {
	content, err := os.ReadFile(filepath.Join("testdata", "standing.json"))
	must(t, err)
	var cases []struct {
		Name, Version string
		Number        int64
		Choice        *choice
		Seen          order
		Live          *order
		Error         string
	}
	must(t, json.Unmarshal(content, &cases))
	if len(cases) < 10 {
		t.Fatal("the table is empty")
	}
	for _, c := range cases {
		live, err := stand(c.Version, c.Number, c.Choice, c.Seen)
		if (err == nil) != (c.Live != nil) || (err == nil && live != *c.Live) {
			t.Errorf("%s: %v, %v", c.Name, live, err)
		} else if err != nil && !strings.Contains(err.Error(), c.Error) {
			t.Errorf("%s: %v", c.Name, err)
		}
	}
}

// choose writes a CHOICE as the daemon's commands do, signed with the fixture's key.
func choose(t testing.TB, folder string, c choice) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(fixture(t), "keys", "dwcp-signing-key.pem"))
	must(t, err)
	block, _ := pem.Decode(content)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	must(t, err)
	line, err := json.Marshal(c)
	must(t, err)
	signature := base64.StdEncoding.EncodeToString(ed25519.Sign(key.(ed25519.PrivateKey), line))
	partial := filepath.Join(folder, ".CHOICE.partial")
	must(t, os.WriteFile(partial, []byte(string(line)+"\n"+signature+"\n"), 0o644))
	must(t, os.Rename(partial, filepath.Join(folder, choiceName)))
}

var choices atomic.Int64

// goTo makes a version live as a person with the key does, so that an older one is followed too.
func goTo(t testing.TB, folder, version string) {
	t.Helper()
	choose(t, folder, choice{1, "pinned", version, time.Now().Unix() + 1000 + choices.Add(1)})
	setCurrent(t, folder, version)
}

// An older signed version that is put back is refused, after a restart too, until a person with the key goes back to it.
func TestAnOlderVersionIsRefused(t *testing.T) {
	folder, document := copied(t), expected(t)
	options := Options{PublicKey: publicKey(t), Remember: filepath.Join(t.TempDir(), "newest")}
	client := open(t, folder, options)
	setCurrent(t, folder, document.Second)
	if swapped, err := client.Refresh(); !swapped || err != nil {
		t.Fatal(swapped, err)
	}
	setCurrent(t, folder, document.First)
	const words = "which was live here already, and nobody who has the signing key went back to it"
	if _, err := client.Refresh(); err == nil || !strings.Contains(err.Error(), words) || client.Version() != document.Second {
		t.Error(client.Version(), err)
	}
	if _, err := Open(folder, options); err == nil || !strings.Contains(err.Error(), words) {
		t.Error("after a restart:", err)
	}
	must(t, os.WriteFile(filepath.Join(folder, choiceName), []byte(`{"kind":"pinned","version":"`+document.First+`","number":9e9}`+"\n"), 0o644))
	if _, err := Open(folder, options); err == nil || !strings.Contains(err.Error(), words) {
		t.Error("a choice that is not signed:", err)
	}
	choose(t, folder, choice{1, "rolled_back", document.First, time.Now().Unix() + 1000})
	if swapped, err := client.Refresh(); !swapped || err != nil || client.Version() != document.First {
		t.Error(swapped, err)
	}
	setCurrent(t, folder, document.Second) // CURRENT can be written without the key, a pin cannot
	if swapped, err := client.Refresh(); swapped || err != nil {
		t.Error(swapped, err)
	}
	choose(t, folder, choice{1, "unpinned", document.First, time.Now().Unix() + 2000})
	if _, err := client.Refresh(); err == nil || !strings.Contains(err.Error(), words) {
		t.Error("a version from before the choice:", err)
	}
}

// A number that nobody can have given makes a choice none.
func TestStandNumbers(t *testing.T) {
	now := time.Now().Unix()
	for number, want := range map[int64]bool{0: true, 1: true, now + 86_400: true, -1: false, now + 2*mostAhead: false, 1 << 53: false, 1<<63 - 1: false} {
		if isOrderNumber(number) != want {
			t.Error(number)
		}
	}
}

// A copy under another name is refused with and without a key.
func TestACopyUnderAnotherName(t *testing.T) {
	folder := copied(t)
	const name = "v20991231_000000"
	must(t, os.CopyFS(filepath.Join(folder, name), os.DirFS(filepath.Join(folder, expected(t).First))))
	setCurrent(t, folder, name)
	for _, options := range []Options{{}, {PublicKey: publicKey(t)}} {
		if _, err := Open(folder, options); err == nil || !strings.Contains(err.Error(), "is of version") {
			t.Error(err)
		}
	}
}

// A pipe where a file belongs is refused at once, wherever it is.
func TestPipes(t *testing.T) {
	first := expected(t).First
	for _, name := range []string{currentName, first + "/" + manifestName, first + "/" + rawFile(first), first + "/" + goldenName} {
		folder := copied(t)
		must(t, os.Remove(filepath.Join(folder, name)))
		must(t, syscall.Mkfifo(filepath.Join(folder, name), 0o600))
		if _, err := Open(folder, Options{PublicKey: publicKey(t)}); err == nil || !strings.Contains(err.Error(), "is not a regular file") {
			t.Errorf("%s: %v", name, err)
		}
	}
	pipe := filepath.Join(t.TempDir(), "pipe")
	must(t, syscall.Mkfifo(pipe, 0o600))
	if _, err := ReadPublicKey(pipe); err == nil || !strings.Contains(err.Error(), "is not a regular file") {
		t.Error(err)
	}
	if _, err := Open(copied(t), Options{PublicKey: publicKey(t), Remember: pipe}); err == nil || !strings.Contains(err.Error(), "is not a regular file") {
		t.Error(err)
	}
}

// A folder with more files than any version has is not read to its end.
func TestTooManyFiles(t *testing.T) {
	folder, first := copied(t), expected(t).First
	crowd := filepath.Join(folder, first, "crowd")
	must(t, os.Mkdir(crowd, 0o755))
	for at := range mostEntries + 1 {
		must(t, os.WriteFile(filepath.Join(crowd, strconv.Itoa(at)), nil, 0o644))
	}
	if _, err := Open(folder, Options{}); err == nil || !strings.Contains(err.Error(), "there are more than 1000 files") {
		t.Error(err)
	}
}
