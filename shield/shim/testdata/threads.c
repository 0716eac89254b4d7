// SPDX-License-Identifier: Apache-2.0
// Threads, signals, cancellation, spawning and a bad pointer: prints what came of it.
#include <pthread.h>
#include <stdio.h>
#include <signal.h>
#include <unistd.h>
#include <sys/wait.h>
#include <spawn.h>
#include <errno.h>
#include <string.h>
static pthread_mutex_t m=PTHREAD_MUTEX_INITIALIZER;static long n;static volatile int sg;
static void h(int s){sg++;}
static void*f(void*a){for(int i=0;i<100000;i++){pthread_mutex_lock(&m);n++;pthread_mutex_unlock(&m);}return 0;}
static void*sl(void*a){for(;;)sleep(100);}
extern char**environ;
int main(){pthread_t t[16];for(int i=0;i<16;i++)pthread_create(t+i,0,f,0);for(int i=0;i<16;i++)pthread_join(t[i],0);printf("%ld\n",n);
signal(SIGUSR1,h);for(int i=0;i<1000;i++){kill(getpid(),SIGUSR1);}printf("sig %d\n",sg);
pthread_create(t,0,sl,0);pthread_cancel(t[0]);void*r;pthread_join(t[0],&r);printf("cancelled %d\n",r==PTHREAD_CANCELED);
pid_t p;char*av[]={"echo","spawned",0};int e=posix_spawn(&p,"/bin/echo",0,0,av,environ);int st;waitpid(p,&st,0);printf("%d %d\n",e,st);
e=posix_spawn(&p,"/nonexistent",0,0,av,environ);printf("%s\n",strerror(e));
if(!vfork())_exit(3);wait(&st);printf("%d\n",WEXITSTATUS(st));
fflush(stdout);int x=write(1,(void*)1,5);printf("%d %d\n",x,errno);return 0;}
