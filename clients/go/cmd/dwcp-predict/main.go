// Command dwcp-predict forecasts what follows the last row of each link in an NDJSON file of telemetry records, with the live version of a
// models folder.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	dwcp "dwcp-learner/clients/go"
)

// Exit codes.
const (
	exitDone    = 0
	exitModel   = 1 // the models folder, the key or ONNX Runtime cannot be used
	exitUsage   = 2
	exitInput   = 3 // the input cannot be read or is no telemetry
	exitTooFew  = 4 // some link has too few rows for a forecast; the others are printed
	usageHeader = `usage: dwcp-predict -models FOLDER [flags] [FILE]

Reads telemetry records, one JSON object a line, from FILE or standard input, links mixed as they may be, oldest first.
Prints for each link what is expected at its next row, one JSON object a line. "ahead" has every horizon of the version, with its rows
after the last one, and the lower, median, upper and mean forecast of each target: the share "coverage" of what was measured in the
version's validation lay between lower and upper. Nothing is printed if a line is not telemetry.

Exit codes: 0 done, 1 the models folder cannot be used, 2 wrong usage, 3 the input cannot be used, 4 a link has too few rows.

`
)

type settings struct {
	models, publicKey, remember, library, graph, linkKey, input string
	verify                                                      bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

func run(ctx context.Context, arguments []string, stdin io.Reader, stdout, stderr io.Writer) int {
	s, err := parse(arguments, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return exitDone
	} else if err != nil {
		fmt.Fprintln(stderr, "error:", err)
		return exitUsage
	}
	options := dwcp.Options{Library: s.library, Remember: s.remember}
	if s.graph == "int8" {
		options.Graph = dwcp.Int8
	}
	if s.publicKey != "" {
		if options.PublicKey, err = dwcp.ReadPublicKey(s.publicKey); err != nil {
			fmt.Fprintln(stderr, "error:", err)
			return exitModel
		}
	}
	client, err := dwcp.Open(s.models, options)
	if err != nil {
		fmt.Fprintln(stderr, "error:", err)
		return exitModel
	}
	defer client.Close()
	if s.verify {
		fmt.Fprintf(stdout, "%s: %s\n", client.Version(), soundness(options))
		return exitDone
	}
	return predict(ctx, client, s, stdin, stdout, stderr)
}

func soundness(options dwcp.Options) string {
	if options.PublicKey != nil {
		return "sound and signed"
	}
	return "sound; the signature was not looked at: no -public-key"
}

func parse(arguments []string, stderr io.Writer) (s settings, err error) {
	flags := flag.NewFlagSet("dwcp-predict", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprint(stderr, usageHeader)
		flags.PrintDefaults()
	}
	flags.StringVar(&s.models, "models", "", "models folder of the daemon, which holds CURRENT")
	flags.StringVar(&s.publicKey, "public-key", "", "public key (PEM) that the version must be signed with; none: the signature is not looked at")
	flags.StringVar(&s.remember, "remember", "", "file that keeps the newest version ever used, so that an older signed one is refused; with -public-key")
	flags.StringVar(&s.library, "library", "", "ONNX Runtime's shared library; default: "+dwcp.LibraryVariable+" in the environment")
	flags.StringVar(&s.graph, "graph", "raw", "raw or int8")
	flags.StringVar(&s.linkKey, "link-key", "node_id,peer_id,link_type", "columns that tell links apart, as links.key of the daemon; empty: one series")
	flags.BoolVar(&s.verify, "verify", false, "only verify the models folder")
	if err := flags.Parse(arguments); err != nil {
		return s, err
	}
	switch {
	case s.models == "":
		return s, errors.New("-models is missing: the models folder of the daemon, which holds CURRENT")
	case s.graph != "raw" && s.graph != "int8":
		return s, fmt.Errorf("-graph is %q: raw or int8", s.graph)
	case flags.NArg() > 1:
		return s, fmt.Errorf("one input file is read, not %d: %s", flags.NArg(), strings.Join(flags.Args(), " "))
	}
	if _, err := keyOf(&dwcp.NetworkSample{}, s.linkKey); err != nil {
		return s, err
	}
	if s.input = flags.Arg(0); s.input == "-" {
		s.input = ""
	}
	return s, nil
}
