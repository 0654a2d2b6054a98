package world

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/oneprom/oneprom/servergroup/backendtest"
)

// PrometheusPackage is the pinned Prometheus, Features what every server of a world has switched on, and oneprom must have too.
const (
	PrometheusPackage = "github.com/prometheus/prometheus/cmd/prometheus"
	Features          = "promql-experimental-functions,promql-extended-range-selectors,promql-binop-fill-modifiers,use-start-timestamps"
)

// Binary builds a package of this module, or of one of its dependencies, into a directory that outlives the test run, and returns the
// path. The directory is $ONEPROM_E2E_BIN, or one in the user's cache. An up-to-date binary costs only go's own check.
func Binary(tb testing.TB, pkg string) string {
	tb.Helper()
	dir := os.Getenv("ONEPROM_E2E_BIN")
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			tb.Fatalf("no cache directory for binaries, set ONEPROM_E2E_BIN: %v", err)
		}
		dir = filepath.Join(cache, "oneprom-e2e")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	path := filepath.Join(dir, filepath.Base(pkg))
	// Releases know their version, by which they are recognized. The worlds need no clients
	// of clouds, which take minutes to build.
	stamp := "-X github.com/prometheus/common/version.Version=" + backendtest.Version
	if out, err := exec.Command("go", "build", "-tags", "remove_all_sd", "-ldflags", stamp, "-o", path, pkg).CombinedOutput(); err != nil {
		tb.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
	return path
}

// Process is a running server.
type Process struct {
	URL string // base URL, without a slash at the end
	PID int

	exit chan error // its Wait, then closed
	log  backendtest.Log
	// What starts it again.
	binary, ready string
	args          []string
}

// Signal sends a signal.
func (p *Process) Signal(sig syscall.Signal) error { return syscall.Kill(p.PID, sig) }

// Kill ends the process, if it has not ended, and waits until it is gone.
func (p *Process) Kill() {
	select {
	case <-p.exit: //nolint:errcheck // its Wait says that it was killed
	default:
		_ = p.Signal(syscall.SIGKILL)
	}
	p.Wait()
}

// Wait waits until the process has ended.
func (p *Process) Wait() {
	for range p.exit { // drained and closed: the process is gone
	}
}

// Restart starts a process that is gone again, with the same address and data.
func (p *Process) Restart(tb testing.TB) {
	tb.Helper()
	p.start(tb)
	p.awaitReady(tb, p.ready)
}

// Run starts a binary that understands --web.listen-address and waits until its /-/ready says yes. The process ends with the test,
// however that ends: it is killed by a clean-up, and by the kernel if the test binary dies.
func Run(tb testing.TB, binary string, args ...string) *Process {
	tb.Helper()
	address := freeAddress(tb)
	return runAt(tb, address, "/-/ready", binary, append(args, "--web.listen-address="+address)...)
}

// runAt is Run for a binary whose arguments make it listen on address, and that says at the path ready when it is.
func runAt(tb testing.TB, address, ready, binary string, args ...string) *Process {
	tb.Helper()
	p := &Process{URL: "http://" + address, binary: binary, args: args, ready: ready}
	p.start(tb)
	tb.Cleanup(p.Kill)
	p.awaitReady(tb, ready)
	return p
}

// start starts the process.
func (p *Process) start(tb testing.TB) {
	tb.Helper()
	cmd := exec.Command(p.binary, p.args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stdout, cmd.Stderr = &p.log, &p.log
	exit := make(chan error, 1)
	p.exit = exit
	started := make(chan error, 1)
	go func() {
		// The death signal is sent when the thread that started the process ends: keep this one until the process is gone.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			exit <- cmd.Wait()
			close(exit)
		}
	}()
	if err := <-started; err != nil {
		tb.Fatalf("start %s: %v", p.binary, err)
	}
	p.PID = cmd.Process.Pid
}

// awaitReady polls the path until the server answers that all is well, for at most two minutes.
func (p *Process) awaitReady(tb testing.TB, path string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 2*time.Minute)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for {
		if ready(ctx, client, p.URL+path) {
			return
		}
		select {
		case err := <-p.exit:
			tb.Fatalf("the server at %s ended before it was ready: %v\n%s", p.URL, err, p.log.String())
		case <-ctx.Done():
			tb.Fatalf("the server at %s does not become ready: %v\n%s", p.URL, ctx.Err(), p.log.String())
		case <-tick.C:
		}
	}
}

func ready(ctx context.Context, client *http.Client, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode/100 == 2
}

// PeakMemory is the largest resident size the process has had so far, in bytes.
func (p *Process) PeakMemory() (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID))
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(status) {
		var kib int64
		if n, _ := fmt.Sscanf(string(line), "VmHWM: %d kB", &kib); n == 1 {
			return kib << 10, nil
		}
	}
	return 0, fmt.Errorf("no VmHWM in the status of process %d", p.PID)
}

// CPU is the processor time that a process has used so far, in steps of 10 ms.
func CPU(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name, in brackets, may hold anything; the times are the 12th and 13th field after it.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	total := time.Duration(0)
	for _, i := range []int{11, 12} {
		ticks, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("times of process %d: %w", pid, err)
		}
		total += time.Duration(ticks) * (time.Second / 100)
	}
	return total, nil
}

// freeAddress finds a loopback port that nobody listens on.
func freeAddress(tb testing.TB) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
