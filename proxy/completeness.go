package proxy

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/oneprom/oneprom/servergroup"
)

const (
	// completenessHeader says of an answer whether it is whole or partial, missingHeader
	// the groups that a partial one lacks data of, escaped as in a URL and separated by
	// commas.
	completenessHeader = "X-Oneprom-Completeness"
	missingHeader      = "X-Oneprom-Missing"
	// mostMissing bounds how many groups are named.
	mostMissing = 20
	// partialHeader lets a request say what becomes of an answer that would be partial.
	partialHeader = "X-Oneprom-Partial-Response"
)

// tellCompleteness says in the header of an answer whether it is whole.
func tellCompleteness(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &servergroup.Completeness{}
		h.ServeHTTP(&completenessWriter{watchedWriter: watchedWriter{ResponseWriter: w}, of: c}, r.WithContext(servergroup.WithCompleteness(r.Context(), c)))
	})
}

// completenessWriter adds the headers when an answer begins. By then it is known what it
// lacks.
type completenessWriter struct {
	watchedWriter
	of *servergroup.Completeness
}

func (w *completenessWriter) WriteHeader(code int) {
	if !w.begun && code/100 == 2 {
		w.tell()
	}
	w.watchedWriter.WriteHeader(code)
}

func (w *completenessWriter) Write(b []byte) (int, error) {
	if !w.begun {
		w.tell()
	}
	return w.watchedWriter.Write(b)
}

// Flush implements http.Flusher.
func (w *completenessWriter) Flush() {
	if !w.begun {
		w.tell()
	}
	w.watchedWriter.Flush()
}

func (w *completenessWriter) tell() {
	completeness, missing := told(w.of)
	for header, text := range map[string]string{completenessHeader: completeness, missingHeader: missing} {
		if text != "" {
			w.Header().Set(header, text)
		}
	}
}

// told is the completeness of an answer as headers have it: empty if there is nothing to
// tell.
func told(of *servergroup.Completeness) (completeness, missing string) {
	if !of.Told() {
		return "", ""
	}
	gaps := of.Gaps()
	if len(gaps) == 0 {
		return "whole", ""
	}
	names := make([]string, 0, mostMissing+1)
	for i, g := range gaps {
		if i == mostMissing {
			names = append(names, "...")
			break
		}
		names = append(names, url.QueryEscape(g.Group))
	}
	return "partial", strings.Join(names, ",")
}

// requestPartial heeds partialHeader.
func (s *Server) requestPartial(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch said := servergroup.PartialResponse(r.Header.Get(partialHeader)); said {
		case "":
			h.ServeHTTP(w, r)
		case servergroup.PartialWarn, servergroup.PartialError:
			h.ServeHTTP(w, r.WithContext(servergroup.WithPartialResponse(r.Context(), said)))
		default:
			respondError(w, &apiError{http.StatusBadRequest, "bad_data", fmt.Errorf("header %s: %q is neither warn nor error", partialHeader, string(said))}, s.logger)
		}
	})
}
