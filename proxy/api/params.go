package api

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/common/model"
	v1 "github.com/prometheus/prometheus/web/api/v1"
)

// TimeParam reads a time from a request. Errors are the API's.
func TimeParam(r *http.Request, name string, missing time.Time) (time.Time, error) {
	text := r.FormValue(name)
	if text == "" {
		return missing, nil
	}
	t, err := parseTime(text)
	if err != nil {
		return time.Time{}, BadParameter(name, fmt.Errorf("invalid time value for '%s': %w", name, err))
	}
	return t, nil
}

// parseTime reads seconds since 1970, rounded to milliseconds, or RFC 3339. The
// ends of time, as the API prints them, have years that no parser knows.
func parseTime(text string) (time.Time, error) {
	if seconds, err := strconv.ParseFloat(text, 64); err == nil {
		whole, fraction := math.Modf(seconds)
		ms := int64(math.Round(fraction * 1000))
		return time.Unix(int64(whole), ms*int64(time.Millisecond)).UTC(), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return t, nil
	}
	for _, end := range []time.Time{v1.MinTime, v1.MaxTime} {
		if text == end.Format(time.RFC3339Nano) {
			return end, nil
		}
	}
	return time.Time{}, fmt.Errorf("cannot parse %q to a valid timestamp", text)
}

// NumberParam reads an integer; missing is -1.
func NumberParam(r *http.Request, name string) (int, error) {
	text := r.FormValue(name)
	if text == "" {
		return -1, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, BadData(fmt.Errorf("%s must be a number", name))
	}
	return n, nil
}

// BoolParam reads true or false; missing is false.
func BoolParam(r *http.Request, name string) (bool, error) {
	switch text := r.FormValue(name); text {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	default:
		return false, BadParameter(name, fmt.Errorf("%q is neither true nor false", text))
	}
}

// ParseDuration reads seconds, or a duration with units as in PromQL.
func ParseDuration(text string) (time.Duration, error) {
	if seconds, err := strconv.ParseFloat(text, 64); err == nil {
		ns := seconds * float64(time.Second)
		if !(ns < math.MaxInt64 && ns > math.MinInt64) {
			return 0, fmt.Errorf("cannot parse %q to a valid duration. It overflows int64", text)
		}
		return time.Duration(ns), nil
	}
	if d, err := model.ParseDuration(text); err == nil {
		return time.Duration(d), nil
	}
	return 0, fmt.Errorf("cannot parse %q to a valid duration", text)
}
