package middleware

import (
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"

	"github.com/oneprom/oneprom/proxy/api"
	"github.com/oneprom/oneprom/servergroup/completeness"
	groupconfig "github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/request"
)

const (
	// exposeHeader names the headers that scripts of other origins may read.
	exposeHeader = "Access-Control-Expose-Headers"
	// partialHeader lets a request say what becomes of an answer that would be partial,
	// and so does partialParam, which is that of Thanos, in the URL: true or false.
	partialHeader = "X-Oneprom-Partial-Response"
	partialParam  = "partial_response"
)

// Completeness says in the header of an answer whether it is whole.
func Completeness(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &completeness.Record{}
		rec, w := api.RecorderOf(w)
		defer rec.OnBegin(completenessHeaders(c))()
		h.ServeHTTP(w, r.WithContext(request.With(r.Context(), func(req *request.Request) { req.Record = c })))
	})
}

// completenessHeaders adds the headers to an answer that begins now: by then it is known what
// it lacks. An error names only the groups for want of which it is one: it is no answer
// that could be whole.
func completenessHeaders(c *completeness.Record) api.Hook {
	return func(header http.Header, code int) (int, []byte) {
		if !c.Reported() {
			return code, nil
		}
		gaps := c.Gaps()
		if header.Get(exposeHeader) != "" {
			header.Set(exposeHeader, strings.Join([]string{"Date", api.CompletenessHeader, api.MissingHeader, api.CacheHeader}, ", "))
		}
		switch {
		case code == http.StatusServiceUnavailable:
		case code/100 != 2:
			return code, nil
		case len(gaps) == 0:
			header.Set(api.CompletenessHeader, "whole")
		default:
			header.Set(api.CompletenessHeader, "partial")
		}
		if len(gaps) > 0 {
			header.Set(api.MissingHeader, api.MissingNames(gaps))
		}
		return code, nil
	}
}

// PartialResponse heeds partialHeader and partialParam.
func PartialResponse(logger *slog.Logger, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		said, err := partialOf(r)
		switch {
		case err != nil:
			api.RespondError(w, api.NewError(http.StatusBadRequest, "bad_data", err), logger)
		case said == "":
			h.ServeHTTP(w, r)
		default:
			h.ServeHTTP(w, r.WithContext(request.With(r.Context(), func(req *request.Request) { req.Partial = said })))
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
