package world

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Start gives all servers their data, two at a time, and starts them: a Prometheus on the data directory that was written for it, the
// others before they are fed. All keep their data below dir. Start returns when all are ready; they end with the test.
func (w *World) Start(tb testing.TB, dir string) {
	tb.Helper()
	pinned := Binary(tb, PrometheusPackage)
	servers := w.Servers()
	start := func(fed bool) {
		for _, s := range servers {
			if s.Kind.fed() == fed {
				s.Process = s.run(tb, pinned, dir)
			}
		}
	}
	start(true)
	errs := make([]error, len(servers))
	gate := make(chan struct{}, 2)
	var wg sync.WaitGroup
	give := func(fed bool) { // those that are fed go first, it takes them longest
		for i, s := range servers {
			if s.Kind.fed() != fed {
				continue
			}
			gate <- struct{}{}
			wg.Go(func() {
				defer func() { <-gate }()
				if fed {
					errs[i] = s.feed(tb.Context(), w.End)
				} else {
					errs[i] = s.Store(tb.Context(), filepath.Join(dir, s.Name), w.End)
				}
			})
		}
	}
	give(true)
	give(false)
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			tb.Fatalf("the data of %s: %v", servers[i].Name, err)
		}
	}
	start(false)
}

// run starts the server; what it has is below dir. pinned is the binary of the pinned Prometheus.
func (s *Server) run(tb testing.TB, pinned, dir string) *Process {
	tb.Helper()
	switch s.Kind {
	case Prometheus2:
		return s.runPrometheus(tb, debianPrometheus(tb), "native-histograms", dir)
	case VictoriaMetrics:
		return runVictoriaMetrics(tb, filepath.Join(dir, s.Name))
	case InfluxDB:
		return runInfluxDB(tb, filepath.Join(dir, s.Name))
	default:
		features := Features
		if s.startTimes() {
			features += ",st-storage"
		}
		return s.runPrometheus(tb, pinned, features, dir)
	}
}

// runPrometheus starts a Prometheus on its data directory below dir.
func (s *Server) runPrometheus(tb testing.TB, binary, features, dir string) *Process {
	tb.Helper()
	config := filepath.Join(dir, s.Name+".yml")
	if err := os.WriteFile(config, []byte(s.config()), 0o644); err != nil {
		tb.Fatal(err)
	}
	return Run(tb, binary,
		"--config.file="+config,
		"--storage.tsdb.path="+filepath.Join(dir, s.Name),
		"--storage.tsdb.retention.time=100y",
		// Nothing is to be compacted while a test runs: same blocks, same order, no stolen time.
		"--storage.tsdb.min-block-duration=2h", "--storage.tsdb.max-block-duration=2h",
		"--enable-feature="+features,
		"--web.enable-remote-write-receiver",
		"--log.level=warn")
}

// config is the configuration file of the server: its external labels, and nothing to scrape.
func (s *Server) config() string {
	var b strings.Builder
	b.WriteString("global:\n  scrape_interval: 15s\n")
	if len(s.ExternalLabels) > 0 {
		b.WriteString("  external_labels:\n")
	}
	for _, name := range slices.Sorted(maps.Keys(s.ExternalLabels)) {
		fmt.Fprintf(&b, "    %s: %q\n", name, s.ExternalLabels[name])
	}
	return b.String()
}

// RunScraping starts a Prometheus, or a Prometheus2, with a configuration file of its own and data below dir. It keeps what is there.
func RunScraping(tb testing.TB, kind Kind, dir, config string) *Process {
	tb.Helper()
	binary := debianPrometheus(tb)
	if kind == Prometheus {
		binary = Binary(tb, PrometheusPackage)
	}
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		tb.Fatal(err)
	}
	return Run(tb, binary, "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--log.level=warn")
}
