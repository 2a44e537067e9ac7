// toolbox is what tests run inside of a cluster's pods, from an image that holds nothing else.
//
//	toolbox fetch [flags] URL      ask a server, as curl would
//	toolbox hub [flags] FOLDER     serve a folder as the Hugging Face hub would
//	toolbox sleep [DURATION]       wait, for ever without a duration: something to exec into
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "toolbox: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch {
	case len(args) > 0 && args[0] == "fetch":
		return fetch(ctx, args[1:])
	case len(args) > 0 && args[0] == "hub":
		return serveHub(ctx, args[1:])
	case len(args) > 0 && args[0] == "sleep":
		return sleep(ctx, args[1:])
	}
	return errors.New("say what to do: fetch, hub or sleep")
}

func sleep(ctx context.Context, args []string) error {
	if len(args) == 0 {
		<-ctx.Done()
		return nil
	}
	duration, err := time.ParseDuration(args[0])
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-time.After(duration):
	}
	return nil
}

// fetch prints the answer's body, and everything else to standard error. Any status but 2xx is an error.
func fetch(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("fetch", flag.ContinueOnError)
	data := flags.String("data", "", "body to send, as JSON; makes it a POST")
	times := flags.Bool("times", false, "begin each line that is not empty with the milliseconds since the request")
	inCluster := flags.Bool("serviceaccount", false, "trust and show what the pod's ServiceAccount has: for the API server")
	timeout := flags.Duration("timeout", time.Minute, "how long all of it may take")
	headers := http.Header{}
	flags.Func("header", "`NAME: VALUE` to send; may be repeated", func(text string) error {
		name, value, found := strings.Cut(text, ":")
		if !found {
			return errors.New("must be NAME: VALUE")
		}
		headers.Add(name, strings.TrimSpace(value))
		return nil
	})
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return errors.New("fetch needs one URL, after the flags")
	}
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	method, body := http.MethodGet, io.Reader(nil)
	if *data != "" {
		method, body = http.MethodPost, strings.NewReader(*data)
		headers.Set("Content-Type", "application/json")
	}
	request, err := http.NewRequestWithContext(ctx, method, flags.Arg(0), body)
	if err != nil {
		return err
	}
	client := http.DefaultClient
	if *inCluster {
		if client, err = serviceAccountClient(headers); err != nil {
			return err
		}
	}
	request.Header = headers
	begun := time.Now()
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	fmt.Fprintf(os.Stderr, "%s after %d ms\n", response.Status, time.Since(begun).Milliseconds())
	if *times {
		err = copyWithTimes(os.Stdout, response.Body, begun)
	} else {
		_, err = io.Copy(os.Stdout, response.Body)
	}
	if err != nil {
		return fmt.Errorf("the answer ends early: %w", err)
	}
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("status %s", response.Status)
	}
	return nil
}

// serviceAccountClient trusts the cluster's authority, and adds the pod's token to the headers.
func serviceAccountClient(headers http.Header) (*http.Client, error) {
	const dir = "/var/run/secrets/kubernetes.io/serviceaccount/"
	token, err := os.ReadFile(dir + "token")
	if err != nil {
		return nil, err
	}
	authority, err := os.ReadFile(dir + "ca.crt")
	if err != nil {
		return nil, err
	}
	headers.Set("Authorization", "Bearer "+string(token))
	authorities := x509.NewCertPool()
	authorities.AppendCertsFromPEM(authority)
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authorities}}}, nil
}

func copyWithTimes(to io.Writer, from io.Reader, begun time.Time) error {
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if lines.Text() != "" {
			fmt.Fprintf(to, "%6d %s\n", time.Since(begun).Milliseconds(), lines.Text())
		}
	}
	return lines.Err()
}
