package proxy

import (
	"fmt"
	"net/http"

	"github.com/oneprom/oneprom/servergroup"
)

// maxForwarded bounds the headers of one request that are passed on, in bytes: less than
// servers take.
const maxForwarded = 6 << 10

// forwardHeaders has the server groups pass on the headers that any forward_headers name.
func (s *Server) forwardHeaders(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		picked, size, named := http.Header{}, 0, false
		for _, g := range s.config.Load().ServerGroups {
			for _, name := range g.ForwardHeaders {
				named = true
				name = http.CanonicalHeaderKey(name)
				if _, known := picked[name]; known || len(r.Header[name]) == 0 {
					continue
				}
				picked[name] = r.Header[name]
				for _, value := range r.Header[name] {
					size += len(name) + len(value)
				}
			}
		}
		switch {
		case size > maxForwarded:
			respondError(w, &apiError{http.StatusRequestHeaderFieldsTooLarge, "bad_data", fmt.Errorf("the headers of the request that are passed on to server groups have %d bytes, more than %d", size, maxForwarded)}, s.logger)
		case named:
			h.ServeHTTP(w, r.WithContext(servergroup.WithRequest(r.Context(), func(w *servergroup.Request) { w.Header = picked })))
		default:
			h.ServeHTTP(w, r)
		}
	})
}
