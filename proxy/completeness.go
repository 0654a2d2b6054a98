package proxy

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/oneprom/oneprom/servergroup"
	"github.com/oneprom/oneprom/servergroup/completeness"
	groupconfig "github.com/oneprom/oneprom/servergroup/config"
)

const (
	// completenessHeader says of an answer whether it is whole or partial, missingHeader
	// the groups that a partial one lacks data of, escaped as in a URL and separated by
	// commas.
	completenessHeader = "X-Oneprom-Completeness"
	missingHeader      = "X-Oneprom-Missing"
	// exposeHeader names the headers that scripts of other origins may read.
	exposeHeader = "Access-Control-Expose-Headers"
	// mostMissing bounds how many groups are named.
	mostMissing = 20
	// partialHeader lets a request say what becomes of an answer that would be partial,
	// and so does partialParam, which is that of Thanos, in the URL: true or false.
	partialHeader = "X-Oneprom-Partial-Response"
	partialParam  = "partial_response"
)

// tellCompleteness says in the header of an answer whether it is whole.
func tellCompleteness(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &completeness.Record{}
		h.ServeHTTP(&completenessWriter{watchedWriter: watchedWriter{ResponseWriter: w}, of: c}, r.WithContext(servergroup.WithRequest(r.Context(), func(w *servergroup.Request) { w.Record = c })))
	})
}

// completenessWriter adds the headers when an answer begins. By then it is known what it
// lacks.
type completenessWriter struct {
	watchedWriter
	of *completeness.Record
}

func (w *completenessWriter) WriteHeader(code int) {
	w.tell(code)
	w.watchedWriter.WriteHeader(code)
}

func (w *completenessWriter) Write(b []byte) (int, error) {
	w.tell(http.StatusOK)
	return w.watchedWriter.Write(b)
}

// Flush implements http.Flusher.
func (w *completenessWriter) Flush() {
	w.tell(http.StatusOK)
	w.watchedWriter.Flush()
}

// tell adds the headers to an answer that begins now. Of an error only the groups are
// told for want of which it is one: it is no answer that could be whole.
func (w *completenessWriter) tell(code int) {
	if w.begun || !w.of.Reported() {
		return
	}
	gaps := w.of.Gaps()
	if w.Header().Get(exposeHeader) != "" {
		w.Header().Set(exposeHeader, strings.Join([]string{"Date", completenessHeader, missingHeader}, ", "))
	}
	switch {
	case code == http.StatusServiceUnavailable:
	case code/100 != 2:
		return
	case len(gaps) == 0:
		w.Header().Set(completenessHeader, "whole")
	default:
		w.Header().Set(completenessHeader, "partial")
	}
	if len(gaps) == 0 {
		return
	}
	w.Header().Set(missingHeader, namesOf(gaps))
}

// namesOf are the groups of gaps as the header has them.
func namesOf(gaps []completeness.Gap) string {
	names := make([]string, 0, mostMissing+1)
	for i, g := range gaps {
		if i == mostMissing {
			names = append(names, "...")
			break
		}
		names = append(names, url.QueryEscape(g.Group))
	}
	return strings.Join(names, ",")
}

// requestPartial heeds partialHeader and partialParam.
func (s *Server) requestPartial(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		said, err := partialOf(r)
		switch {
		case err != nil:
			respondError(w, &apiError{http.StatusBadRequest, "bad_data", err}, s.logger)
		case said == "":
			h.ServeHTTP(w, r)
		default:
			h.ServeHTTP(w, r.WithContext(servergroup.WithRequest(r.Context(), func(w *servergroup.Request) { w.Partial = said })))
		}
	})
}

// partialOf is what a request says of partial answers; "" if nothing. The header is
// stronger: the parameter may be that of a data source, for all its requests.
func partialOf(r *http.Request) (groupconfig.PartialResponse, error) {
	switch said := groupconfig.PartialResponse(r.Header.Get(partialHeader)); said {
	case groupconfig.PartialWarn, groupconfig.PartialError:
		return said, nil
	case "":
	default:
		return "", fmt.Errorf("header %s: %q is neither warn nor error", partialHeader, string(said))
	}
	text := r.URL.Query().Get(partialParam)
	if text == "" {
		return "", nil
	}
	allowed, err := strconv.ParseBool(text)
	switch {
	case err != nil:
		return "", fmt.Errorf("invalid parameter %q: %q is neither true nor false", partialParam, text)
	case allowed:
		return groupconfig.PartialWarn, nil
	}
	return groupconfig.PartialError, nil
}
