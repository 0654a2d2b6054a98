package proxy

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestBounds_NestedQueries: a query that is nested too deep is refused on every route that takes
// one, as one that needs too many samples is.
func TestBounds_NestedQueries(t *testing.T) {
	s, _ := startedServer(t, regionsConfig("127.0.0.1:1", "127.0.0.1:2"), sameFeatures)
	const deeper = 1 << 20 // than the stack of upstream's parser would be
	for path, form := range map[string]url.Values{
		"query": {}, "query_range": {"start": {"0"}, "end": {"60"}, "step": {"15"}}, "explain": {}, "query_exemplars": {},
	} {
		form.Set("query", strings.Repeat("(", deeper)+"up"+strings.Repeat(")", deeper))
		w := ask(s.Handler(), http.MethodPost, "/api/v1/"+path, form.Encode())
		require.Equal(t, http.StatusUnprocessableEntity, w.Code, path)
		require.JSONEq(t, `{"status":"error","errorType":"execution","error":"the query is nested too deep: more than 2000 operators, or brackets, within one another; a chain such as `+
			"`a or b or ...`"+` is nested, too"}`, w.Body.String(), path)
	}
	for _, path := range []string{"parse_query", "format_query"} {
		w := ask(s.Handler(), http.MethodPost, "/api/v1/"+path, url.Values{"query": {strings.Repeat("-", deeper)}}.Encode())
		require.Equal(t, http.StatusBadRequest, w.Code, path)
		require.Contains(t, w.Body.String(), "the query is nested too deep", path)
	}
}
