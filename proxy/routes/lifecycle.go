package routes

import (
	"fmt"
	"io"
	"net/http"
	"net/http/pprof"
	"strings"

	"github.com/prometheus/common/route"

	"github.com/oneprom/oneprom/servergroup/redact"
)

// Lifecycle reloads and ends the server by request.
type Lifecycle struct {
	Enabled bool // --web.enable-lifecycle
	Reload  func() error
	Quit    func() (first bool) // has Run return
}

// ifEnabled lets a handler act only if --web.enable-lifecycle is given.
func (l Lifecycle) ifEnabled(h http.HandlerFunc) http.HandlerFunc {
	if l.Enabled {
		return h
	}
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, "Lifecycle API is not enabled.")
	}
}

func onlyPostOrPut(w http.ResponseWriter, _ *http.Request) {
	w.WriteHeader(http.StatusMethodNotAllowed)
	_, _ = io.WriteString(w, "Only POST or PUT requests allowed")
}

// serveReload loads the configuration anew and answers with the outcome. A
// client that does not wait does not stop the reload.
func (l Lifecycle) serveReload(w http.ResponseWriter, _ *http.Request) {
	if err := l.Reload(); err != nil {
		http.Error(w, redact.URLs(fmt.Sprintf("failed to reload config: %s", err)), http.StatusInternalServerError)
	}
}

// serveQuit has Run return.
func (l Lifecycle) serveQuit(w http.ResponseWriter, _ *http.Request) {
	reply := "Termination already in progress."
	if l.Quit() {
		reply = "Requesting termination... Goodbye!"
	}
	_, _ = io.WriteString(w, reply)
}

// says answers with a line of text.
func says(line string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, line) }
}

// serveDebug is /debug/pprof/*.
func serveDebug(w http.ResponseWriter, r *http.Request) {
	path := route.Param(r.Context(), "subpath")
	if path == "/pprof" {
		http.Redirect(w, r, r.URL.Path+"/", http.StatusMovedPermanently)
		return
	}
	name, ok := strings.CutPrefix(path, "/pprof/")
	if !ok {
		http.NotFound(w, r)
		return
	}
	switch name {
	case "cmdline":
		pprof.Cmdline(w, r)
	case "profile":
		pprof.Profile(w, r)
	case "symbol":
		pprof.Symbol(w, r)
	case "trace":
		pprof.Trace(w, r)
	default:
		r.URL.Path = "/debug/pprof/" + name // where pprof expects itself
		pprof.Index(w, r)
	}
}
