package dwcp

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"
	"syscall"
)

const (
	currentName = "CURRENT"

	mostCurrentBytes  = 64
	mostDocumentBytes = 64 << 20  // a hundred times the largest document of a version
	mostGraphBytes    = 256 << 20 // fifty times a graph
	mostManifestBytes = 1 << 20   // a hundred times a manifest
	mostEntries       = 1000      // files and folders of a version: there are some twenty
)

var versionPattern = regexp.MustCompile(`^v\d{8}_\d{6}$`)

// current reads CURRENT, once, and returns the version that it names.
func current(models *os.Root) (string, error) {
	content, _, err := readPlain(models, currentName, mostCurrentBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return "", errors.New("there is no CURRENT: no version has been published here yet")
	} else if err != nil {
		return "", err
	}
	version := strings.TrimSpace(string(content))
	if !versionPattern.MatchString(version) {
		return "", fmt.Errorf("CURRENT names %.80q, which is not a version", version)
	}
	return version, nil
}

// openPlain opens a regular file inside the root: no link, no pipe, nothing outside. It never waits.
func openPlain(root *os.Root, name string) (*os.File, int64, error) {
	info, err := root.Lstat(name)
	if err != nil {
		return nil, 0, withoutPath(name, err)
	}
	if !info.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%q is not a regular file", name)
	}
	file, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe put in its place since would be waited for
	if err != nil {
		return nil, 0, withoutPath(name, err)
	}
	if info, err = file.Stat(); err != nil || !info.Mode().IsRegular() {
		file.Close()
		return nil, 0, fmt.Errorf("%q is not a regular file", name)
	}
	return file, info.Size(), nil
}

// readPlain returns the content of a regular file of at most `most` bytes, and the SHA-256 of that very content in hexadecimal.
func readPlain(root *os.Root, name string, most int64) ([]byte, string, error) {
	file, size, err := openPlain(root, name)
	if err != nil {
		return nil, "", err
	}
	defer file.Close()
	if size > most {
		return nil, "", fmt.Errorf("%q has %d bytes, more than any such file", name, size)
	}
	content, err := io.ReadAll(io.LimitReader(file, size))
	if err != nil {
		return nil, "", withoutPath(name, err)
	}
	sum := sha256.Sum256(content)
	return content, hex.EncodeToString(sum[:]), nil
}

// hashPlain returns the SHA-256 of a regular file of at most the size of a graph, in hexadecimal.
func hashPlain(root *os.Root, name string) (string, error) {
	file, size, err := openPlain(root, name)
	if err != nil {
		return "", err
	}
	defer file.Close()
	if size > mostGraphBytes {
		return "", fmt.Errorf("%q has %d bytes, more than any such file", name, size)
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, io.LimitReader(file, size)); err != nil { // a file that is being appended to ends somewhere
		return "", withoutPath(name, err)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// present lists everything in the folder that is no folder itself; links are not followed.
func present(root *os.Root) (map[string]fs.FileMode, error) {
	found, waiting, entries := map[string]fs.FileMode{}, []string{"."}, 0
	for len(waiting) > 0 {
		folder := waiting[0]
		waiting = waiting[1:]
		file, err := root.Open(folder)
		if err != nil {
			return nil, withoutPath(folder, err)
		}
		inside, err := file.ReadDir(mostEntries + 1) // a folder of a million entries is not read to its end
		file.Close()
		if err != nil && err != io.EOF {
			return nil, withoutPath(folder, err)
		}
		if entries += len(inside); entries > mostEntries {
			return nil, fmt.Errorf("there are more than %d files", mostEntries)
		}
		for _, entry := range inside {
			name := path.Join(folder, entry.Name())
			if entry.IsDir() {
				waiting = append(waiting, name)
			} else {
				found[name] = entry.Type()
			}
		}
	}
	return found, nil
}

// readBounded returns the content of a regular file of at most `most` bytes, which a link may lead to. It never waits for a pipe.
func readBounded(path string, most int64) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	content, err := io.ReadAll(io.LimitReader(file, most+1))
	if err == nil && int64(len(content)) > most {
		err = fmt.Errorf("%s has more than %d bytes", path, most)
	}
	return content, err
}

// withoutPath is an error that says what failed with which file, without the system call's name.
func withoutPath(name string, err error) error {
	var failed *fs.PathError
	if errors.As(err, &failed) {
		return fmt.Errorf("%q: %w", name, failed.Err)
	}
	return fmt.Errorf("%q: %w", name, err)
}
