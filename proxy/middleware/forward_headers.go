package middleware

import (
	"fmt"
	"log/slog"
	"net/http"

	"github.com/oneprom/oneprom/proxy/api"
	"github.com/oneprom/oneprom/proxy/config"
	"github.com/oneprom/oneprom/servergroup/request"
)

// maxForwarded bounds the headers of one request that are passed on, in bytes: less than
// servers take.
const maxForwarded = 6 << 10

// ForwardHeaders has the server groups pass on the headers that any forward_headers name.
func ForwardHeaders(cfg func() *config.Config, logger *slog.Logger, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		picked, size, named := http.Header{}, 0, false
		for _, g := range cfg().ServerGroups {
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
			api.RespondError(w, api.NewError(http.StatusRequestHeaderFieldsTooLarge, "bad_data", fmt.Errorf("the headers of the request that are passed on to server groups have %d bytes, more than %d", size, maxForwarded)), logger)
		case named:
			h.ServeHTTP(w, r.WithContext(request.With(r.Context(), func(req *request.Request) { req.Header = picked })))
		default:
			h.ServeHTTP(w, r)
		}
	})
}
