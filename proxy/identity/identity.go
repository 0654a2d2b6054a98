// Package identity finds out who sent a request, by what this very request shows: a user whose
// password is right, and a client certificate that was verified.
//
// The listener of exporter-toolkit checks the same. But it reads the web configuration file anew
// for each request, and tells nobody what it has checked: while the file is rewritten it may be
// empty, and then everybody gets in. So each request is checked here once more. It must show
// what the file asked for when it was loaded, and that must be right by the file as it is now.
// A reload does not open what was closed.
package identity

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync/atomic"
)

// Identity is who sent a request, as far as that was checked.
type Identity struct {
	User         string   // "" is none
	Certificates []string // names in a client certificate
}

type key struct{}

// Of returns who sent a request. Where nothing was checked, that is nobody.
func Of(ctx context.Context) Identity {
	id, _ := ctx.Value(key{}).(Identity)
	return id
}

// Checker checks what requests show. Its methods may be called from any goroutine.
type Checker struct {
	file   file
	loaded atomic.Pointer[WebConfig]
	logger *slog.Logger
}

// NewChecker loads the web configuration file. Without a file nothing is checked.
func NewChecker(path string, logger *slog.Logger) (*Checker, error) {
	c := &Checker{file: file{path: path}, logger: logger}
	next, err := c.Load()
	if err != nil {
		return nil, err
	}
	c.Use(next)
	return c, nil
}

// Loaded is the configuration that decides what requests must show.
func (c *Checker) Loaded() *WebConfig { return c.loaded.Load() }

// Use has another one decide.
func (c *Checker) Use(next *WebConfig) { c.loaded.Store(next) }

// Load reads the file as the listener does when it starts. What asks for less than the one
// that was loaded before is an error: a file that is just being written looks like that.
func (c *Checker) Load() (*WebConfig, error) {
	if c.file.path == "" {
		return &WebConfig{}, nil
	}
	next, err := load(c.file.path)
	if err != nil {
		return nil, err
	}
	if before := c.Loaded(); before != nil {
		if lost := before.lostIn(next); lost != "" {
			return nil, errors.New("--web.config.file: " + lost + ": restart oneprom if clients are to get in without")
		}
	}
	return next, nil
}

// Check lets the requests in that show what they must, and has Of tell who sent them.
func (c *Checker) Check(h http.Handler) http.Handler {
	if c.file.path == "" {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, ok := c.identify(r)
		if !ok {
			w.Header().Set("WWW-Authenticate", "Basic")
			http.Error(w, http.StatusText(http.StatusUnauthorized), http.StatusUnauthorized)
			return
		}
		h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), key{}, id)))
	})
}

// identify finds out who sent a request, and whether it shows what it must.
func (c *Checker) identify(r *http.Request) (id Identity, ok bool) {
	loaded := c.Loaded()
	now, changed, err := c.file.read()
	if changed {
		c.sayWhoIsKeptOut(now, err)
	}
	if err != nil {
		return Identity{}, false
	}
	if user, password, shown := r.BasicAuth(); shown && now.right(user, password) {
		id.User = user
	} else if len(loaded.users) > 0 || len(now.users) > 0 {
		return Identity{}, false
	}
	cert := now.verified(r.TLS, loaded)
	if cert != nil {
		id.Certificates = namesIn(cert)
	}
	return id, loaded.satisfied(r.TLS, cert != nil)
}

// sayWhoIsKeptOut logs, once for each content of the file, that clients which should get in
// may not, and why.
func (c *Checker) sayWhoIsKeptOut(now *WebConfig, err error) {
	if err != nil {
		c.logger.Error("nobody is let in: the web configuration file cannot be read", "err", err)
	} else if lost := c.Loaded().lostIn(now); lost != "" {
		c.logger.Error("requests are refused: the web configuration file asks for less than it did when it was loaded", "err", lost)
	}
}
