package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"

	"berth.dev/e2e/cluster/toolbox/hub"
)

// serveHub serves a folder as the Hugging Face hub would, until it is told to stop.
func serveHub(ctx context.Context, args []string) error {
	options := hub.Options{BytesPerSecond: map[string]int64{}}
	flags := flag.NewFlagSet("hub", flag.ContinueOnError)
	listen := flags.String("listen", ":8080", "`ADDRESS` to listen on")
	flags.StringVar(&options.Token, "token", "", "opens what is gated")
	flags.Func("gated", "`ORG/NAME` that needs the token; may be repeated", func(name string) error {
		options.Gated = append(options.Gated, name)
		return nil
	})
	flags.Func("bytes-per-second", "`[ORG/NAME=]N`: no file is sent faster than that, or none of one repository; may be repeated",
		func(text string) error {
			name, number, named := strings.Cut(text, "=")
			if !named {
				name, number = "", text
			}
			speed, err := strconv.ParseInt(number, 10, 64)
			if err != nil || speed < 1 {
				return errors.New("must be a number of bytes")
			}
			options.BytesPerSecond[name] = speed
			return nil
		})
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return errors.New("hub needs one folder, after the flags: that of the repositories, ORG/NAME/FILE")
	}
	options.Root = flags.Arg(0)
	handler, err := hub.New(options)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "%s is served at %s\n", options.Root, listener.Addr())
	server := &http.Server{Handler: handler}
	go func() {
		<-ctx.Done()
		_ = server.Close() // what is being sent ends early, as where a server goes
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
