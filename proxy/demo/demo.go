// Package demo is `make demo`: oneprom in front of a small world of Prometheus
// servers, all in this process and on the loopback interface.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/oneprom/oneprom/proxy"
)

// stopWait is how long the servers let requests finish at the end.
const stopWait = 5 * time.Second

// DefaultListenAddress is where oneprom listens unless the caller says otherwise.
const DefaultListenAddress = "127.0.0.1:9090"

// Run builds the world, puts oneprom in front of it and writes to out where it is,
// how it is configured and how its answers compare. It then serves until ctx ends,
// which is no error, and leaves nothing behind. If listenAddress (host:port) is
// taken, oneprom listens on a free port of the same host.
func Run(ctx context.Context, out io.Writer, listenAddress string) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	return run(ctx, out, listenAddress, clock{now: time.Now, ticks: ticker.C})
}

// clock is the time of the demo. The world goes on at each tick.
type clock struct {
	now   func() time.Time
	ticks <-chan time.Time
}

func run(ctx context.Context, out io.Writer, listenAddress string, c clock) (err error) {
	d := &demo{client: &http.Client{Transport: &http.Transport{}}}
	defer func() { err = errors.Join(err, d.stop()) }()

	if err := d.start(ctx, listenAddress, c); err != nil {
		return unlessEnded(ctx, err)
	}
	rows, err := d.compare(ctx)
	if err != nil {
		return unlessEnded(ctx, err)
	}
	if err := d.tell(out, rows); err != nil {
		return err
	}
	return unlessEnded(ctx, d.world.live(ctx, c))
}

// unlessEnded is nil once ctx has ended: what was cut off then did not fail.
func unlessEnded(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// demo is a world and the oneprom in front of it.
type demo struct {
	dir    string // holds all files; removed by stop
	config string // the text of oneprom's configuration file
	world  *world
	proxy  *proxy.Server
	taken  string // the address that oneprom should have listened on, if it is taken
	client *http.Client
	took   time.Duration // the start
}

// start builds everything. After an error stop is still needed.
func (d *demo) start(ctx context.Context, listenAddress string, c clock) (err error) {
	began := time.Now()
	if d.dir, err = os.MkdirTemp("", "oneprom-demo-"); err != nil {
		return err
	}
	if d.world, err = newWorld(ctx, d.dir, c.now); err != nil {
		return fmt.Errorf("building the world: %w", err)
	}
	d.config = d.world.config()
	file := filepath.Join(d.dir, "oneprom.yml")
	if err := os.WriteFile(file, []byte(d.config), 0o600); err != nil {
		return err
	}
	d.proxy, err = newProxy(file, listenAddress, c.now)
	if errors.Is(err, syscall.EADDRINUSE) {
		d.taken = listenAddress
		d.proxy, err = newProxy(file, freePort(listenAddress), c.now)
	}
	if err != nil {
		return fmt.Errorf("oneprom: %w", err)
	}
	if err := d.proxy.Start(ctx); err != nil {
		return fmt.Errorf("oneprom: %w", err)
	}
	d.took = time.Since(began)
	return nil
}

// newProxy returns oneprom with the defaults of its command line.
func newProxy(configFile, address string, now func() time.Time) (*proxy.Server, error) {
	var o proxy.Options
	app := kingpin.New("oneprom", "")
	proxy.AddFlags(app, &o)
	if _, err := app.Parse([]string{"--config.file=" + configFile, "--web.listen-address=" + address}); err != nil {
		return nil, err
	}
	o.Now = now
	return proxy.New(o)
}

// freePort is any free port of the host of an address.
func freePort(address string) string {
	return address[:strings.LastIndex(address, ":")] + ":0"
}

// stop ends oneprom, then the world, and removes all files. It also works on a
// demo whose start was not complete.
func (d *demo) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopWait)
	defer cancel()
	var errs []error
	d.client.CloseIdleConnections()
	if d.proxy != nil {
		errs = append(errs, d.proxy.Stop(ctx))
	}
	if d.world != nil {
		errs = append(errs, d.world.stop(ctx))
	}
	errs = append(errs, os.RemoveAll(d.dir)) // which does nothing if dir is ""
	return errors.Join(errs...)
}

func (d *demo) url() string { return "http://" + d.proxy.Addr() }

// compare asks all questions for the end of the history.
func (d *demo) compare(ctx context.Context) ([]row, error) {
	return compare(ctx, d.client, d.world.truth.url(), d.world.server(alone).url(), d.url(), d.world.end)
}

// tell writes all that the reader is shown, in one piece.
func (d *demo) tell(out io.Writer, rows []row) error {
	var b strings.Builder
	fmt.Fprintf(&b, "A world of %d small Prometheus servers with %s of history, built in %.1f s. It goes on live, every %s.\n\n",
		len(d.world.servers), short(history), d.took.Seconds(), interval)
	d.world.describe(&b)
	fmt.Fprintf(&b, "\nThis is all that oneprom is told about it:\n\n%s\n", indent(d.config))
	if d.taken != "" {
		fmt.Fprintf(&b, "%s is taken: oneprom listens on a free port instead.\n", d.taken)
	}
	fmt.Fprintf(&b, "oneprom:  %s\n", d.url())
	fmt.Fprintf(&b, "Grafana:  data source of type Prometheus, URL %s\n", d.url())
	fmt.Fprintf(&b, "try:      curl -s %s/api/v1/query --data-urlencode 'query=count by (region, job) (up)'\n\n", d.url())
	if err := writeTable(&b, rows, d.world.end); err != nil {
		return err
	}
	fmt.Fprint(&b, "\nCtrl-C ends it and leaves nothing behind.\n")
	_, err := io.WriteString(out, b.String())
	return err
}

func indent(text string) string {
	return "    " + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n    ") + "\n"
}
