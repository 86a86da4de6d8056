package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	dwcp "dwcp-learner/clients/go"
)

const byteOrderMark = "\uFEFF" // some editors begin a file with it; within a line it is no JSON

// link is one link's newest rows.
type link struct {
	rows    []dwcp.NetworkSample
	skipped int
}

// forecast is one line of output.
type forecast struct {
	NodeID    string  `json:"node_id,omitempty"`
	PeerID    string  `json:"peer_id,omitempty"`
	LinkType  string  `json:"link_type,omitempty"`
	Timestamp float64 `json:"timestamp"` // of the link's last row
	// null for a target that was never measured in the version's training
	ThroughputMbps *float64 `json:"throughput_mbps"`
	RTTMs          *float64 `json:"rtt_ms"`
	PacketLoss     *float64 `json:"packet_loss"`
	JitterMs       *float64 `json:"jitter_ms"`
	Version        string   `json:"version"`
	// of a version that forecasts several horizons
	Coverage float64      `json:"coverage,omitempty"`
	Ahead    []dwcp.Ahead `json:"ahead,omitempty"`
}

// lineOf is the line for a link whose last row is given.
func lineOf(last dwcp.NetworkSample, made dwcp.Forecast) forecast {
	return forecast{
		last.NodeID, last.PeerID, last.LinkType, last.Timestamp,
		dwcp.Known(made.ThroughputMbps), dwcp.Known(made.RTTMs), dwcp.Known(made.PacketLoss), dwcp.Known(made.JitterMs), made.Version,
		made.Coverage, made.Ahead,
	}
}

func predict(ctx context.Context, client *dwcp.Client, s settings, stdin io.Reader, stdout, stderr io.Writer) int {
	input, name := stdin, "standard input"
	if s.input != "" {
		file, err := os.Open(s.input)
		if err != nil {
			fmt.Fprintln(stderr, "error:", err)
			return exitInput
		}
		defer file.Close()
		input, name = file, s.input
	}
	links, order, err := read(input, s.linkKey)
	if err != nil {
		fmt.Fprintf(stderr, "error: %s: %v\n", name, err)
		return exitInput
	}
	code := exitDone
	out := json.NewEncoder(stdout)
	for _, key := range order {
		rows := links[key].rows
		made, err := client.Predict(ctx, rows)
		var tooFew *dwcp.TooFewRowsError
		switch {
		case errors.As(err, &tooFew):
			tooFew.Skipped = links[key].skipped
			fmt.Fprintf(stderr, "no forecast for link %s: %v\n", key, tooFew)
			code = exitTooFew
			continue
		case err != nil:
			fmt.Fprintf(stderr, "error: link %s: %v\n", key, err)
			return exitModel
		}
		if err := out.Encode(lineOf(rows[len(rows)-1], made)); err != nil {
			fmt.Fprintln(stderr, "error: the forecasts cannot be written:", err)
			return exitInput
		}
	}
	return code
}

// read gives the newest rows of each link, and the links in the order of their first row. The error names the line.
func read(input io.Reader, linkKey string) (links map[string]*link, order []string, err error) {
	links = map[string]*link{}
	lines := bufio.NewScanner(input)
	lines.Buffer(make([]byte, 64<<10), dwcp.MaxRecordBytes+1)
	number := 0
	for lines.Scan() {
		number++
		line := lines.Bytes()
		if number == 1 {
			line = bytes.TrimPrefix(line, []byte(byteOrderMark))
		}
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		sample, err := dwcp.DecodeRecord(line)
		if err != nil {
			return nil, nil, fmt.Errorf("line %d: %w", number, err)
		}
		key, err := keyOf(&sample, linkKey)
		if err != nil {
			return nil, nil, err
		}
		if links[key] == nil {
			links[key] = &link{}
			order = append(order, key)
		}
		links[key].add(sample)
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return nil, nil, fmt.Errorf("line %d: longer than %d bytes", number+1, dwcp.MaxRecordBytes)
	} else if lines.Err() != nil {
		return nil, nil, lines.Err()
	}
	if number == 0 {
		return nil, nil, errors.New("it is empty")
	}
	return links, order, nil
}

// add keeps a row that is newer than all before it, and forgets those that no forecast can depend on any more.
func (l *link) add(sample dwcp.NetworkSample) {
	if len(l.rows) > 0 && sample.Timestamp <= l.rows[len(l.rows)-1].Timestamp {
		l.skipped++
		return
	}
	if len(l.rows) == 2*dwcp.KeepRows {
		l.rows = append(l.rows[:0], l.rows[dwcp.KeepRows:]...)
	}
	l.rows = append(l.rows, sample)
}

// keyOf gives the name of a sample's link: the columns of the key, joined.
func keyOf(sample *dwcp.NetworkSample, linkKey string) (string, error) {
	if linkKey == "" {
		return "(all)", nil
	}
	columns := map[string]string{
		"node_id": sample.NodeID, "peer_id": sample.PeerID, "region": sample.Region, "az": sample.AZ, "link_type": sample.LinkType,
		"dwcp_mode": sample.DWCPMode, "network_tier": sample.NetworkTier, "transport_type": sample.TransportType,
	}
	parts := []string{}
	for _, name := range strings.Split(linkKey, ",") {
		value, known := columns[strings.TrimSpace(name)]
		if !known {
			return "", fmt.Errorf("-link-key: %q is no column that a link key is made of", name)
		}
		parts = append(parts, strings.NewReplacer(`\`, `\\`, "|", `\|`).Replace(value))
	}
	return strings.Join(parts, "|"), nil
}
