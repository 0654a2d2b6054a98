// Package verify replays queries against two servers and reports how the answers differ.
package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/alecthomas/kingpin/v2"
	commoncfg "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"golang.org/x/term"
)

// Exit codes.
const (
	exitEqual   = 0
	exitDiffers = 1
	exitUnknown = 2 // it was not found out
)

const (
	defaultSpan = time.Hour
	defaultStep = time.Minute
	// settled is how old the last sample is that is asked for by default: the servers have written it.
	settled = 5 * time.Minute
	// maxPoints is how many steps a range may have; servers refuse more.
	maxPoints = 11_000
)

// Command is a verification as a command line says it.
type Command struct {
	Reference, Test  string // base URLs
	HTTPConfigFile   string
	Files            []string
	Start, End, Step string // as in the API
	Instant          bool
	Ulps             uint64
	Concurrency      int
	Timeout          time.Duration

	Now func() time.Time // nil is time.Now
}

// AddFlags defines the flags and the arguments of a command.
func (c *Command) AddFlags(cmd *kingpin.CmdClause) {
	cmd.Arg("file", "Query log of Prometheus or oneprom, dashboard of Grafana (JSON), or list of queries, one a line; # begins a comment. Can be repeated.").Required().StringsVar(&c.Files)
	cmd.Flag("reference", "Base URL of the server whose answers are right.").Required().PlaceHolder("<URL>").StringVar(&c.Reference)
	cmd.Flag("test", "Base URL of the server whose answers are compared with them.").Required().PlaceHolder("<URL>").StringVar(&c.Test)
	cmd.Flag("http.config.file", "HTTP client configuration file for both servers, as that of promtool: authentication, TLS, headers.").PlaceHolder("<path>").StringVar(&c.HTTPConfigFile)
	cmd.Flag("start", "Start of the range that is asked for (RFC 3339, or seconds since 1970). Defaults to an hour before the end. Queries of a log are asked for their own time, unless --start or --end is given.").PlaceHolder("<time>").StringVar(&c.Start)
	cmd.Flag("end", "End of the range, and time of instant queries. Defaults to 5 minutes ago, so that both servers have written what they have.").PlaceHolder("<time>").StringVar(&c.End)
	cmd.Flag("step", "Step of the range: a duration, or seconds. Defaults to 1m, or what a log says.").PlaceHolder("<duration>").StringVar(&c.Step)
	cmd.Flag("instant", "Ask instant queries, at the end of the range.").BoolVar(&c.Instant)
	cmd.Flag("ulps", "How many units in the last place values may differ and be equal: sums that are added up in another order do. 0 is none.").Default("4").Uint64Var(&c.Ulps)
	cmd.Flag("concurrency", "How many queries are asked at once, of each server.").Default("4").IntVar(&c.Concurrency)
	cmd.Flag("timeout", "How long an answer may take.").Default("2m").DurationVar(&c.Timeout)
}

// Run verifies, and returns the exit code: 0 if all answers are equal, 1 if some are not, 2 if that was not found out. If ctx ends, it
// reports what was found until then.
func (c *Command) Run(ctx context.Context, stdout, stderr io.Writer) int {
	r, err := c.run(ctx, progressOn(stderr))
	if err != nil {
		fmt.Fprintf(stderr, "oneprom: %s\n", err)
		return exitUnknown
	}
	r.write(stdout)
	return r.exitCode()
}

// progressOn is where progress is shown: on a terminal only.
func progressOn(stderr io.Writer) io.Writer {
	if f, ok := stderr.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return stderr
	}
	return io.Discard
}

func (c *Command) run(ctx context.Context, progress io.Writer) (*report, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	w, err := c.window()
	if err != nil {
		return nil, err
	}
	client, err := c.client()
	if err != nil {
		return nil, err
	}
	defer client.CloseIdleConnections()
	questions, skipped, err := readSources(c.Files, w)
	if err != nil {
		return nil, err
	}
	v := &verification{
		client: client, reference: c.Reference, test: c.Test, timeout: c.Timeout, tolerance: Ulps(c.Ulps),
		progress: &progressLine{out: progress, all: len(questions)},
	}
	return &report{results: v.askAll(ctx, questions, c.Concurrency), all: len(questions), skipped: skipped}, nil
}

func (c *Command) validate() error {
	var errs []error
	for _, side := range []struct{ flag, text string }{{"--reference", c.Reference}, {"--test", c.Test}} {
		if u, err := url.Parse(side.text); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			errs = append(errs, fmt.Errorf("%s: not the URL of an http or https server, as http://localhost:9090", side.flag))
		}
	}
	if c.Concurrency < 1 {
		errs = append(errs, errors.New("--concurrency: must be at least 1"))
	}
	if c.Timeout <= 0 {
		errs = append(errs, errors.New("--timeout: must be longer than 0s"))
	}
	return errors.Join(errs...)
}

func (c *Command) client() (*http.Client, error) {
	cfg := &commoncfg.DefaultHTTPClientConfig
	if c.HTTPConfigFile != "" {
		var err error
		if cfg, _, err = commoncfg.LoadHTTPConfigFile(c.HTTPConfigFile); err != nil {
			return nil, fmt.Errorf("--http.config.file: %w", err)
		}
	}
	return commoncfg.NewClientFromConfig(*cfg, "verify", commoncfg.WithUserAgent("oneprom-verify"))
}

// window is for when questions are asked. Times are multiples of the step by default, as those of dashboards are.
func (c *Command) window() (window, error) {
	now := time.Now()
	if c.Now != nil {
		now = c.Now()
	}
	w := window{step: defaultStep, instant: c.Instant, override: c.Start != "" || c.End != ""}
	var err error
	if c.Step != "" {
		if w.step, err = parseDuration(c.Step); err != nil || w.step < time.Millisecond {
			return w, fmt.Errorf("--step=%s: not a duration such as 1m, or a number of seconds", c.Step)
		}
	}
	w.end = now.Add(-settled).Truncate(w.step)
	if c.End != "" {
		if w.end, err = parseTime(c.End); err != nil {
			return w, fmt.Errorf("--end=%s: %w", c.End, err)
		}
	}
	w.start = w.end.Add(-defaultSpan)
	if c.Start != "" {
		if w.start, err = parseTime(c.Start); err != nil {
			return w, fmt.Errorf("--start=%s: %w", c.Start, err)
		}
	}
	switch {
	case w.start.After(w.end):
		return w, fmt.Errorf("--start is after --end: %s, %s", w.start.UTC().Format(time.RFC3339), w.end.UTC().Format(time.RFC3339))
	case w.end.Sub(w.start)/w.step > maxPoints:
		return w, fmt.Errorf("--step=%s: a range of more than %d steps is refused by servers: make it longer", model.Duration(w.step), maxPoints)
	}
	return w, nil
}

func parseTime(s string) (time.Time, error) {
	if seconds, err := strconv.ParseFloat(s, 64); err == nil {
		if t := timeOf(seconds); !t.IsZero() {
			return t, nil
		}
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	return time.Time{}, errors.New("not a time such as 2026-01-02T15:04:05Z, or seconds since 1970")
}

func parseDuration(s string) (time.Duration, error) {
	if seconds, err := strconv.ParseFloat(s, 64); err == nil {
		if !(seconds > 0 && seconds < math.MaxInt32) {
			return 0, errors.New("out of range")
		}
		return time.Duration(seconds * float64(time.Second)), nil
	}
	d, err := model.ParseDuration(s)
	return time.Duration(d), err
}
