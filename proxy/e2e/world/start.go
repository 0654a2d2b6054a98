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

// lockedBuffer collects the output of a process.
type lockedBuffer struct {
	mu  sync.Mutex // guards b: stdout and the reader of the log are different goroutines
	out strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.out.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.out.String()
}

// Start writes the data of all servers below dir, two at a time, and starts them. It returns when all are ready; they end with the test.
func (w *World) Start(tb testing.TB, dir string) {
	tb.Helper()
	binary := Binary(tb, PrometheusPackage)
	servers := w.Servers()
	errs := make([]error, len(servers))
	gate := make(chan struct{}, 2)
	var wg sync.WaitGroup
	for i, s := range servers {
		wg.Go(func() {
			gate <- struct{}{}
			defer func() { <-gate }()
			errs[i] = s.Store(tb.Context(), filepath.Join(dir, s.Name), w.End)
		})
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			tb.Fatalf("store %s: %v", servers[i].Name, err)
		}
	}
	for _, s := range servers {
		p := s.run(tb, binary, dir)
		s.URL, s.PID = p.URL, p.PID
	}
}

// run starts the server on its data directory below dir.
func (s *Server) run(tb testing.TB, binary, dir string) *Process {
	tb.Helper()
	config := filepath.Join(dir, s.Name+".yml")
	if err := os.WriteFile(config, []byte(s.config()), 0o644); err != nil {
		tb.Fatal(err)
	}
	features := Features
	if s.startTimes() {
		features += ",st-storage"
	}
	return Run(tb, binary,
		"--config.file="+config,
		"--storage.tsdb.path="+filepath.Join(dir, s.Name),
		"--storage.tsdb.retention.time=100y",
		// Nothing is to be compacted while a test runs: same blocks, same order, no stolen time.
		"--storage.tsdb.min-block-duration=2h", "--storage.tsdb.max-block-duration=2h",
		"--enable-feature="+features,
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
