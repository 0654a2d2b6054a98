package world

import (
	"fmt"
	"math"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Kind is what a server is.
type Kind string

// The kinds of servers. All but the pinned Prometheus are Debian's: the packages prometheus, victoria-metrics and influxdb.
const (
	Prometheus      Kind = ""
	Prometheus2     Kind = "prometheus 2"
	VictoriaMetrics Kind = "victoriametrics"
	InfluxDB        Kind = "influxdb"
	Oneprom         Kind = "oneprom" // started by the test itself
)

// fed reports whether servers of the kind get their data by remote write, as a Prometheus beside them would send it.
func (k Kind) fed() bool { return k == VictoriaMetrics || k == InfluxDB }

// holds reports whether a server of the kind can be given the sample. What they drop by themselves is given to them all the same: ordinary
// NaN, and in InfluxDB stale markers.
func (k Kind) holds(v sample) bool {
	switch k {
	case Prometheus2: // knows no custom buckets
		return (v.h == nil || !v.h.UsesCustomBuckets()) && (v.fh == nil || !v.fh.UsesCustomBuckets())
	case VictoriaMetrics:
		return v.h == nil && v.fh == nil
	case InfluxDB: // refuses a whole request for one infinity
		return v.h == nil && v.fh == nil && !math.IsInf(v.f, 0)
	default:
		return true
	}
}

// debianBinary finds a binary of a Debian package, whose output for the argument must contain text.
func debianBinary(tb testing.TB, name, pkg, arg, text string) string {
	tb.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		tb.Fatalf("%v: apt-get install %s", err, pkg)
	}
	out, err := exec.Command(path, arg).CombinedOutput()
	if err != nil || !strings.Contains(string(out), text) {
		tb.Fatalf("%s %s should say %q: %v\n%s", path, arg, text, err, out)
	}
	return path
}

func debianPrometheus(tb testing.TB) string {
	tb.Helper()
	return debianBinary(tb, "prometheus", "prometheus", "--version", "version 2.")
}

// runVictoriaMetrics starts a VictoriaMetrics whose data is below dir.
func runVictoriaMetrics(tb testing.TB, dir string) *Process {
	tb.Helper()
	binary := debianBinary(tb, "victoria-metrics", "victoria-metrics", "-help", "victoria-metrics")
	address := freeAddress(tb)
	return runAt(tb, address, "/health", binary,
		"-storageDataPath="+dir,
		"-httpListenAddr="+address,
		"-retentionPeriod=100y",
		"-loggerLevel=WARN")
}

// influxDatabase is the database of the worlds.
const influxDatabase = "prom"

// runInfluxDB starts an InfluxDB whose data is below dir.
func runInfluxDB(tb testing.TB, dir string) *Process {
	tb.Helper()
	binary := debianBinary(tb, "influxd", "influxdb", "version", "InfluxDB v1.")
	address := freeAddress(tb)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	config := filepath.Join(dir, "influxdb.conf")
	text := fmt.Sprintf(`reporting-disabled = true
bind-address = "127.0.0.1:0"
[meta]
  dir = "%[1]s/meta"
[data]
  dir = "%[1]s/data"
  wal-dir = "%[1]s/wal"
[http]
  bind-address = "%[2]s"
  log-enabled = false
[monitor]
  store-enabled = false
`, dir, address)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		tb.Fatal(err)
	}
	return runAt(tb, address, "/ping", binary, "-config", config)
}

// writePath is where servers of the kind take remote write. InfluxDB takes and gives only what belongs to a database.
func (k Kind) writePath() string {
	if k == InfluxDB {
		return "/api/v1/prom/write?" + url.Values(InfluxParams).Encode()
	}
	return "/api/v1/write"
}

// InfluxParams are the URL parameters that requests to the InfluxDB of a world need.
var InfluxParams = map[string][]string{"db": {influxDatabase}}
