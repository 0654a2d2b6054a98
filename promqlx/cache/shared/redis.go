package shared

import (
	"fmt"
	"strconv"
)

// redis speaks the protocol of Redis, version 2 of it, which all versions of Redis and its
// relatives know.
type redis struct{ login Login }

// Login is what Redis wants to know of a new connection.
type Login struct {
	Username string
	// Password is called for each connection. Nil is none.
	Password func() (string, error)
	DB       int
}

func (l Login) password() (string, error) {
	if l.Password == nil {
		return "", nil
	}
	return l.Password()
}

func (r redis) hello(c *conn) error {
	password, err := r.login.password()
	if err != nil {
		return err
	}
	if password != "" {
		args := []string{"AUTH", password}
		if r.login.Username != "" {
			args = []string{"AUTH", r.login.Username, password}
		}
		if err := demand(c, args...); err != nil {
			return fmt.Errorf("logging in: %w", err)
		}
	}
	if r.login.DB == 0 {
		return nil
	}
	if err := demand(c, "SELECT", strconv.Itoa(r.login.DB)); err != nil {
		return fmt.Errorf("selecting database %d: %w", r.login.DB, err)
	}
	return nil
}

// demand sends a command that must succeed.
func demand(c *conn, args ...string) error {
	begin(c, len(args))
	for _, arg := range args {
		argument(c, arg)
	}
	if err := c.w.Flush(); err != nil {
		return err
	}
	refusal, err := verdict(c)
	if err == nil && refusal != "" {
		err = fmt.Errorf("the server says: %s", refusal)
	}
	return err
}

func (redis) get(c *conn, names []string) ([][]byte, error) {
	out := make([][]byte, len(names))
	begin(c, 1+len(names))
	argument(c, "MGET")
	for _, name := range names {
		argument(c, name)
	}
	if err := c.w.Flush(); err != nil {
		return out, err
	}
	n, err := header(c, '*')
	if err != nil {
		return out, err
	}
	if n != len(names) {
		return out, fmt.Errorf("%d values were sent for %d keys", n, len(names))
	}
	for i := range out {
		size, err := header(c, '$')
		if err != nil {
			return out, err
		}
		if size == -1 { // there is none
			continue
		}
		if out[i], err = c.value(size); err != nil {
			return out, err
		}
	}
	return out, nil
}

func (redis) set(c *conn, items []item) (refused int, err error) {
	sent := 0
	for _, it := range items {
		ms := it.ttl.Milliseconds()
		if ms <= 0 {
			continue
		}
		sent++
		begin(c, 5)
		argument(c, "SET")
		argument(c, it.name)
		argument(c, it.value)
		argument(c, "PX")
		argument(c, strconv.FormatInt(ms, 10))
	}
	if err := c.w.Flush(); err != nil {
		return 0, err
	}
	for range sent {
		refusal, err := verdict(c)
		if err != nil {
			return refused, err
		}
		if refusal != "" { // it has no memory left, or is a replica
			refused++
		}
	}
	return refused, nil
}

// begin and argument write a command. What fails shows when it is flushed.
func begin(c *conn, arguments int) { fmt.Fprintf(c.w, "*%d\r\n", arguments) }

func argument[T string | []byte](c *conn, arg T) {
	fmt.Fprintf(c.w, "$%d\r\n", len(arg))
	_, _ = c.w.Write([]byte(arg))
	_, _ = c.w.Write(crlf)
}

// verdict reads the answer to a command that has no result: "" is OK.
func verdict(c *conn) (refusal string, err error) {
	line, err := c.line()
	switch {
	case err != nil:
		return "", err
	case string(line) == "+OK":
		return "", nil
	case len(line) > 1 && line[0] == '-':
		return fmt.Sprintf("%.100q", line[1:]), nil
	}
	return "", protocolError(line)
}

// header reads a number behind the character that says what follows.
func header(c *conn, what byte) (n int, err error) {
	line, err := c.line()
	if err != nil {
		return 0, err
	}
	if len(line) > 1 && line[0] == '-' {
		return 0, fmt.Errorf("the server says: %.100q", line[1:])
	}
	if len(line) < 2 || line[0] != what {
		return 0, protocolError(line)
	}
	if n, err = strconv.Atoi(string(line[1:])); err != nil {
		return 0, protocolError(line)
	}
	return n, nil
}
