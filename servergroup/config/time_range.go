package config

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/prometheus/common/model"
)

// TimeRange bounds samples in time, absolutely and by age. Unset bounds do not
// bind. Start and End are inclusive.
type TimeRange struct {
	MinAge model.Duration `yaml:"min_age,omitempty"`
	MaxAge model.Duration `yaml:"max_age,omitempty"`
	Start  Time           `yaml:"start,omitempty"`
	End    Time           `yaml:"end,omitempty"`
}

// IsZero reports whether the range is empty; yaml then leaves it out.
func (r TimeRange) IsZero() bool { return r == TimeRange{} }

func (r TimeRange) validate(errs *FieldErrors) {
	if r.MaxAge > 0 && r.MinAge >= r.MaxAge {
		errs.Add(fmt.Sprintf("the range is empty: min_age %s is not less than max_age %s", r.MinAge, r.MaxAge), "time_range", "min_age")
	}
	if !r.Start.IsZero() && !r.End.IsZero() && r.Start.After(r.End.Time) {
		errs.Add(fmt.Sprintf("the range is empty: start %s is after end %s", r.Start.Format(time.RFC3339Nano), r.End.Format(time.RFC3339Nano)), "time_range", "start")
	}
}

// Time is an instant in a configuration file: RFC 3339 or seconds since the
// epoch. The zero value is unset.
type Time struct{ time.Time }

// UnmarshalYAML implements yaml.Unmarshaler.
func (t *Time) UnmarshalYAML(unmarshal func(any) error) error {
	var s string
	if err := unmarshal(&s); err != nil {
		return err
	}
	if parsed, err := time.Parse(time.RFC3339Nano, s); err == nil {
		t.Time = parsed.UTC()
		return nil
	}
	sec, err := strconv.ParseFloat(s, 64)
	if err != nil || !(math.Abs(sec) < maxUnixSeconds) {
		return fmt.Errorf("cannot read %q as a time: write RFC 3339 (2026-01-02T15:04:05Z) or seconds since 1970", s)
	}
	t.Time = time.UnixMilli(int64(math.Round(sec * 1000))).UTC()
	return nil
}

// maxUnixSeconds keeps times within the years that RFC 3339 can write. A time in
// milliseconds is beyond it, and so is found.
const maxUnixSeconds = 60e9

// MarshalYAML implements yaml.Marshaler.
func (t Time) MarshalYAML() (any, error) { return t.Format(time.RFC3339Nano), nil }

// Bounds returns the range in ms, inclusive, at a given time.
func (r TimeRange) Bounds(now time.Time) (lo, hi int64) {
	lo, hi = math.MinInt64, math.MaxInt64
	if !r.Start.IsZero() {
		lo = r.Start.UnixMilli()
	}
	if !r.End.IsZero() {
		hi = r.End.UnixMilli()
	}
	if r.MaxAge > 0 {
		lo = max(lo, now.Add(-time.Duration(r.MaxAge)).UnixMilli())
	}
	if r.MinAge > 0 {
		hi = min(hi, now.Add(-time.Duration(r.MinAge)).UnixMilli())
	}
	return lo, hi
}

// MinTime and MaxTime (ms) bound what can be written as a date: years 1 to 9999.
const (
	MinTime = -62135596800000
	MaxTime = 253402300799999
)

// FormatTime writes a time (ms) as RFC 3339, and as a number where it has no date.
func FormatTime(ms int64) string {
	if ms < MinTime || ms > MaxTime {
		return fmt.Sprintf("%d ms", ms)
	}
	return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z")
}
