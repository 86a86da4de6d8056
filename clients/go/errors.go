package dwcp

import (
	"errors"
	"fmt"
	"strings"
)

// ErrClosed is what a client returns after Close.
var ErrClosed = errors.New("dwcp: the client is closed")

// TooFewRowsError says that a link's newest run of rows is too short for a forecast.
type TooFewRowsError struct {
	Rows     int  // in the newest run
	Need     int  // WindowRows, or ShortRows for a version of several horizons
	AfterGap bool // a gap lies before the run, and rows before it do not count
	Skipped  int  // rows that were not newer than a row before them
}

func (e *TooFewRowsError) Error() string {
	message := fmt.Sprintf("dwcp: %d rows", e.Rows)
	if e.AfterGap {
		message += " since the last gap"
	}
	message += fmt.Sprintf(", a forecast needs %d of one link", e.Need)
	if e.Skipped > 0 {
		message += fmt.Sprintf("; %d rows were skipped, because they are no newer than a row before them (rows come oldest first)", e.Skipped)
	}
	return message
}

// RowError says which row is no valid telemetry, and why.
type RowError struct {
	Row     int // index in what was given to Predict
	Problem string
}

func (e *RowError) Error() string { return fmt.Sprintf("dwcp: row %d: %s", e.Row, e.Problem) }

// LinkContextError says that a LinkContext was not made for the version that forecasts now: each version has horizons of its own.
type LinkContextError struct {
	Version string
	Rows    int // of the LinkContext
	Need    int // 3, and one for each of the version's horizons
}

func (e *LinkContextError) Error() string {
	return fmt.Sprintf("dwcp: the context has %d rows, version %s needs %d: level, spread, profile, and the profile at each of its horizons",
		e.Rows, e.Version, e.Need)
}

// VersionError says why a published version is not used. Problems name everything that was found.
type VersionError struct {
	Version  string // empty if CURRENT names none
	Folder   string
	Problems []string
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("dwcp: %s: %s; check it with `dwcp-learner models verify`, or go back with `dwcp-learner models rollback`",
		e.Folder, strings.Join(e.Problems, "; "))
}
