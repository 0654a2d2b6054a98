package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/prometheus/common/model"
)

// answer is what a server says to an instant query.
type answer struct {
	vector   model.Vector
	warnings []string
}

// ask sends an instant query that gives a vector.
func ask(ctx context.Context, client *http.Client, base, query string, at time.Time) (answer, error) {
	form := url.Values{"query": {query}, "time": {strconv.FormatInt(at.Unix(), 10)}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/api/v1/query?"+form.Encode(), nil)
	if err != nil {
		return answer{}, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	var body struct {
		Status, Error string
		Warnings      []string
		Data          struct {
			ResultType string
			Result     model.Vector
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
		return answer{}, fmt.Errorf("%s: %s: %s: %w", base, query, resp.Status, err)
	}
	if body.Status != "success" {
		return answer{}, fmt.Errorf("%s: %s: %s: %s", base, query, resp.Status, body.Error)
	}
	return answer{body.Data.Result, body.Warnings}, nil
}
