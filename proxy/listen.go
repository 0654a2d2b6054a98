package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/prometheus/exporter-toolkit/web"
	"github.com/prometheus/prometheus/util/netconnlimit"
)

// listen binds the addresses. If one fails, those before it are closed.
func listen(addresses []string, maxConnections int) ([]net.Listener, error) {
	slots := netconnlimit.NewSharedSemaphore(maxConnections)
	var bound []net.Listener
	for _, a := range addresses {
		l, err := net.Listen("tcp", a)
		if err != nil {
			return nil, errors.Join(err, closeListeners(bound))
		}
		bound = append(bound, netconnlimit.SharedLimitListener(l, slots))
	}
	return bound, nil
}

// activated are the sockets that systemd has bound.
func activated(maxConnections int) ([]net.Listener, error) {
	found, err := activation.Listeners()
	if err != nil {
		return nil, err
	}
	slots := netconnlimit.NewSharedSemaphore(maxConnections)
	var out []net.Listener
	for _, l := range found {
		if l != nil { // a file that is no stream
			out = append(out, netconnlimit.SharedLimitListener(l, slots))
		}
	}
	if len(out) == 0 {
		return nil, errors.New("systemd has passed no socket: start oneprom by a .socket unit")
	}
	return out, nil
}

// closeListeners closes listeners, of which some may be closed already.
func closeListeners(ls []net.Listener) error {
	var errs []error
	for _, l := range ls {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// httpServers serve one handler, a server for each listener: exporter-toolkit
// changes the server that it is given.
type httpServers struct {
	webConfig string
	logger    *slog.Logger
	servers   []*http.Server
	endAll    context.CancelFunc // ends the requests' contexts
	running   sync.WaitGroup
	failed    chan error // of a server that ended by itself
}

func newHTTPServers(h http.Handler, n int, readTimeout time.Duration, webConfig string, logger *slog.Logger) *httpServers {
	ctx, cancel := context.WithCancel(context.Background())
	s := &httpServers{webConfig: webConfig, logger: logger, endAll: cancel, failed: make(chan error, n)}
	for range n {
		s.servers = append(s.servers, &http.Server{
			Handler:     h,
			ReadTimeout: readTimeout,
			ErrorLog:    slog.NewLogLogger(logger.Handler(), slog.LevelError),
			BaseContext: func(net.Listener) context.Context { return ctx },
		})
	}
	return s
}

// serve serves the listeners in the background.
func (s *httpServers) serve(listeners []net.Listener) {
	for i, l := range listeners {
		s.running.Go(func() {
			err := web.Serve(l, s.servers[i], &web.FlagConfig{WebConfigFile: &s.webConfig}, s.logger)
			if !errors.Is(err, http.ErrServerClosed) {
				s.failed <- fmt.Errorf("serving %s: %w", l.Addr(), err)
			}
		})
	}
}

// abortWait is how long handlers get to return after their requests were ended.
const abortWait = 2 * time.Second

// shutdown waits for the requests under way until ctx ends, and then ends them.
func (s *httpServers) shutdown(ctx context.Context) error {
	drained := s.each(func(srv *http.Server) error { return srv.Shutdown(ctx) })
	s.endAll()
	if drained != nil {
		abort, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortWait)
		defer cancel()
		if s.each(func(srv *http.Server) error { return srv.Shutdown(abort) }) != nil {
			_ = s.each((*http.Server).Close)
		}
		drained = fmt.Errorf("requests were cut off: %w", drained)
	}
	s.running.Wait()
	return drained
}

// each calls f for all servers at once and joins the errors.
func (s *httpServers) each(f func(*http.Server) error) error {
	errs := make([]error, len(s.servers))
	var wg sync.WaitGroup
	for i, srv := range s.servers {
		wg.Go(func() { errs[i] = f(srv) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
