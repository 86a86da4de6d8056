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
	"time"
)

const (
	choiceName      = "CHOICE"
	choiceSchema    = 1
	mostChoiceBytes = 4096
	mostAhead       = 100 * 366 * 86_400 // a number is about the seconds of the clock at which it was given
)

// isOrderNumber reports whether it can be the number of a version or a choice (model/registry/choice.py).
func isOrderNumber(number int64) bool { return 0 <= number && number <= time.Now().Unix()+mostAhead }

// order is what only rises from one live version to the next: a number, and among versions of older releases, which have none, the name.
type order struct {
	Number  int64  `json:"number"`
	Version string `json:"version"`
}

func (o order) before(other order) bool {
	return o.Number < other.Number || (o.Number == other.Number && o.Version < other.Version)
}

// choice is a person's last word on the live version: a rollback, a pin, or the end of one. It is a line of JSON, then its signature.
type choice struct {
	Schema  int    `json:"schema"`
	Kind    string `json:"kind"`
	Version string `json:"version"`
	Number  int64  `json:"number"`
}

func (c *choice) pins() bool { return c.Kind == "rolled_back" || c.Kind == "pinned" }

// readChoice returns the choice of a models folder; nil if there is none.
func readChoice(models *os.Root, key ed25519.PublicKey) (*choice, error) {
	content, _, err := readPlain(models, choiceName, mostChoiceBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	line, signature, _ := bytes.Cut(content, []byte("\n"))
	if problem := signatureProblem(key, line, signature); problem != "" {
		return nil, fmt.Errorf("the signature of %s %s", choiceName, problem)
	}
	c := &choice{}
	if err := json.Unmarshal(line, c); err != nil {
		return nil, fmt.Errorf("%s cannot be read (%w)", choiceName, err)
	}
	switch {
	case c.Schema > choiceSchema:
		return nil, fmt.Errorf("%s was written by a newer release (schema %d, this one reads %d)", choiceName, c.Schema, choiceSchema)
	case !versionPattern.MatchString(c.Version) || !isOrderNumber(c.Number) || !(c.pins() || c.Kind == "unpinned"):
		return nil, fmt.Errorf("%s is not a choice", choiceName)
	}
	return c, nil
}

// stand returns which version is live, as the daemon does (model/registry/choice.py). name is what CURRENT names, empty if that cannot be used;
// number is that of its signed manifest; seen is the newest version that this client has ever used.
func stand(name string, number int64, c *choice, seen order) (order, error) {
	live := order{number, name}
	if c != nil && c.Number > number && c.Number >= seen.Number && (c.pins() || c.Version == name) {
		live = order{c.Number, c.Version}
	}
	if live.Version == "" {
		return live, fmt.Errorf("%s does not name a version that can be used", currentName)
	}
	if live.Version == seen.Version && live.Number < seen.Number {
		return live, fmt.Errorf("the choice that made %s live (number %d) is gone or older", live.Version, seen.Number)
	}
	if live.before(seen) {
		return live, fmt.Errorf("%s is older than %s, which was live here already, and nobody who has the signing key went back to it",
			live.Version, seen.Version)
	}
	return live, nil
}

// live reads CURRENT and, if there is a key, what says that it is not an older version that somebody has put back.
func live(models *os.Root, key ed25519.PublicKey, seen order) (order, error) {
	name, err := current(models)
	if key == nil {
		return order{0, name}, err
	}
	// A choice that is damaged or not signed has no effect; what it would have allowed is refused.
	c, _ := readChoice(models, key)
	number := int64(0)
	if err == nil {
		number, err = signedNumber(models, name, key)
	}
	if err != nil {
		if c == nil || !c.pins() {
			return order{}, err
		}
		name, number = "", 0 // a person's pin counts, whatever CURRENT names
	}
	return stand(name, number, c, seen)
}

// signedNumber returns the number in a version's signed manifest. Its error is a *VersionError.
func signedNumber(models *os.Root, name string, key ed25519.PublicKey) (int64, error) {
	v := &version{name: name, folder: filepath.Join(models.Name(), name)}
	root, err := models.OpenRoot(name)
	if err != nil {
		return 0, v.refused(withoutPath(name, err).Error())
	}
	defer root.Close()
	content, err := readManifest(root, key)
	if err != nil {
		return 0, v.refused(err.Error())
	}
	m, err := parseManifest(content, name)
	if err != nil {
		return 0, v.refused(err.Error())
	}
	return m.Number, nil
}

// remembered reads the newest version that was used before a restart; nothing if the file is not there yet or none is named.
func remembered(path string) (seen order, err error) {
	if path == "" {
		return seen, nil
	}
	content, err := readBounded(path, mostChoiceBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return seen, nil
	}
	if err == nil {
		err = json.Unmarshal(content, &seen)
	}
	if err != nil {
		return seen, fmt.Errorf("dwcp: %s, which remembers the newest version, cannot be read (%w); restore it, or remove it if nobody could "+
			"have put an older version back", path, err)
	}
	return seen, nil
}

// remember writes the newest version that was used, whole or not at all.
func remember(path string, seen order) (err error) {
	if path == "" {
		return nil
	}
	content, err := json.Marshal(seen)
	if err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("dwcp: the newest version cannot be remembered: %w", err)
	}
	defer func() {
		if err != nil {
			os.Remove(file.Name())
			err = fmt.Errorf("dwcp: the newest version cannot be remembered: %w", err)
		}
	}()
	_, err = file.Write(append(content, '\n'))
	err = errors.Join(err, file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	return err
}
