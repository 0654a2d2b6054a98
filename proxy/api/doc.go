// Package api is the ground of the HTTP API, on which all its handlers stand: the envelope
// of answers, the table of errors, how parameters are read, the codec of large answers, and
// the one recorder of what was answered.
//
// A handler of oneprom's own is a Handler: it returns a Result or an error. Serve makes an
// http.HandlerFunc of it. An error is an *Error, which has its place in the API's table, or
// whatever the server groups failed with: Classify finds its place, which is 422 or 503,
// whose bodies Grafana reads, and never 500.
//
// A Recorder is put around the connection once. What has to see or change an answer when it
// begins (completeness headers, the slot that becomes free, the permission of tenants) adds a
// hook to it instead of a writer of its own.
package api
