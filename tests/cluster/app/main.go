// Command app is what runs in the pods of the tests: nothing at all ("pause"), or a service that says its version at /alive and
// works at /work as its image's variables say, and slowly once /slow was asked for.
package main

import (
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	if len(os.Args) > 1 && os.Args[1] == "pause" {
		<-stop
		return
	}
	if why := os.Getenv("APP_CRASH"); why != "" {
		fmt.Println(why)
		os.Exit(3)
	}
	// A duration; none works at once.
	stated, _ := time.ParseDuration(os.Getenv("APP_DELAY"))
	var delay atomic.Int64
	delay.Store(int64(stated))
	version := os.Getenv("APP_VERSION")
	http.HandleFunc("/alive", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, "alive %s\n", version) })
	http.HandleFunc("/work", func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(time.Duration(delay.Load()))
		fmt.Fprintf(w, "done by %s\n", version)
	})
	http.HandleFunc("/slow", func(http.ResponseWriter, *http.Request) { delay.Store(int64(3 * time.Second)) })
	go func() { panic(http.ListenAndServe(":8080", nil)) }()
	<-stop
}
