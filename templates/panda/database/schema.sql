-- The tables, columns, keys and sequences that the code of panda-server 0.5.1, 0.8.1 and 1.0.4 uses.
-- Not PanDA's own schema files: no partitions, no secondary indexes, no stored procedures.

CREATE SCHEMA doma_deft AUTHORIZATION panda;

CREATE SCHEMA doma_panda AUTHORIZATION panda;

CREATE SCHEMA doma_pandaarch AUTHORIZATION panda;

CREATE SCHEMA doma_pandabigmon AUTHORIZATION panda;

CREATE SCHEMA doma_pandameta AUTHORIZATION panda;

SET ROLE panda;

CREATE TABLE doma_deft."prodsys_comm" (
    "comm_task" bigint,
    "comm_meta" bigint,
    "comm_owner" character varying(32),
    "comm_cmd" character varying(256),
    "comm_ts" bigint,
    "comm_comment" character varying(128),
    "comm_parameters" text
);

CREATE TABLE doma_deft."t_task" (
    "taskid" bigint,
    "parent_tid" bigint,
    "status" character varying(12),
    "total_done_jobs" bigint,
    "submit_time" timestamp(0) without time zone,
    "start_time" timestamp(0) without time zone,
    "timestamp" timestamp(0) without time zone,
    "vo" character varying(32),
    "prodsourcelabel" character varying(20),
    "taskname" character varying(256),
    "username" character varying(128),
    "priority" bigint,
    "current_priority" bigint,
    "total_req_jobs" bigint,
    "chain_tid" bigint,
    "total_events" bigint,
    "jedi_task_parameters" text,
    "total_input_events" bigint
);

CREATE TABLE doma_panda."async_requests" (
    "request_id" character varying(64) NOT NULL,
    "request_type" character varying(64),
    "service_name" character varying(64),
    "machine_name" character varying(128),
    "parameters" text,
    "expected_machines" text,
    "created_at" timestamp without time zone,
    PRIMARY KEY ("request_id")
);

CREATE TABLE doma_panda."async_results" (
    "request_id" character varying(64) NOT NULL,
    "machine_name" character varying(128) NOT NULL,
    "status" character varying(16),
    "result" text,
    "stderr" text,
    "return_code" smallint,
    "truncated" smallint,
    "error_msg" character varying(2048),
    "attempts" smallint,
    "started_at" timestamp without time zone,
    "finished_at" timestamp without time zone,
    PRIMARY KEY ("request_id", "machine_name")
);

CREATE TABLE doma_panda."cache" (
    "main_key" character varying(56) NOT NULL,
    "sub_key" character varying(56) NOT NULL,
    "data" text,
    "last_update" timestamp without time zone,
    PRIMARY KEY ("main_key", "sub_key")
);

CREATE TABLE doma_panda."carbon_region_emissions" (
    "region" character varying(32) NOT NULL,
    "timestamp" timestamp without time zone NOT NULL,
    "value" bigint,
    PRIMARY KEY ("region", "timestamp")
);

CREATE TABLE doma_panda."config" (
    "app" character varying(64) NOT NULL,
    "component" character varying(64) NOT NULL,
    "key" character varying(64) NOT NULL,
    "value" character varying(256),
    "type" character varying(64),
    "vo" character varying(32) NOT NULL,
    "descr" character varying(256),
    "value_json" jsonb,
    PRIMARY KEY ("app", "component", "key", "vo")
);

CREATE TABLE doma_panda."cpu_benchmarks" (
    "cpu_type" character varying(128),
    "smt_enabled" smallint,
    "sockets" smallint,
    "cores_per_socket" integer,
    "ncores" integer,
    "site" character varying(128),
    "score_per_core" numeric(10,2),
    "timestamp" timestamp without time zone,
    "source" character varying(256),
    "cpu_type_normalized" character varying(128)
);

CREATE TABLE doma_panda."data_carousel_relations" (
    "request_id" bigint NOT NULL,
    "task_id" bigint,
    PRIMARY KEY ("request_id")
);

CREATE TABLE doma_panda."data_carousel_requests" (
    "request_id" bigint NOT NULL,
    "dataset" character varying(256),
    "source_rse" character varying(64),
    "destination_rse" character varying(64),
    "ddm_rule_id" character varying(64),
    "status" character varying(32),
    "total_files" bigint,
    "staged_files" bigint,
    "dataset_size" bigint,
    "staged_size" bigint,
    "creation_time" timestamp without time zone,
    "start_time" timestamp without time zone,
    "end_time" timestamp without time zone,
    "modification_time" timestamp without time zone,
    "check_time" timestamp without time zone,
    "source_tape" character varying(64),
    "parameters" jsonb,
    "last_staged_time" timestamp without time zone,
    "locked_by" character varying(64),
    "lock_time" timestamp without time zone,
    PRIMARY KEY ("request_id")
);

CREATE TABLE doma_panda."datasets" (
    "vuid" character varying(40) NOT NULL,
    "name" character varying(255),
    "version" character varying(10),
    "type" character varying(20),
    "status" character varying(10),
    "numberfiles" integer,
    "currentfiles" integer,
    "creationdate" timestamp without time zone,
    "modificationdate" timestamp without time zone NOT NULL,
    "moverid" bigint,
    "transferstatus" smallint,
    "subtype" character varying(5),
    PRIMARY KEY ("vuid", "modificationdate")
);

CREATE TABLE doma_panda."ddm_endpoint" (
    "ddm_endpoint_name" character varying(52) NOT NULL,
    "site_name" character varying(52),
    "ddm_spacetoken_name" character varying(52),
    "space_total" bigint,
    "space_free" bigint,
    "space_used" bigint,
    "is_tape" character varying(1),
    "type" character varying(20),
    "blacklisted" character(1),
    "space_expired" bigint,
    "space_timestamp" timestamp without time zone,
    "blacklisted_read" character(1),
    "blacklisted_write" character(1),
    "detailed_status" jsonb,
    "space_min_free" bigint,
    "space_unavailable" bigint,
    PRIMARY KEY ("ddm_endpoint_name")
);

CREATE TABLE doma_panda."error_classification" (
    "id" bigint NOT NULL,
    "error_source" character varying(30),
    "error_code" bigint,
    "error_diag" character varying(256),
    "description" character varying(250),
    "error_class" character varying(30),
    "active" character(1),
    "reg_date" timestamp without time zone,
    PRIMARY KEY ("id")
);

CREATE TABLE doma_panda."error_descriptions" (
    "id" bigint NOT NULL,
    "component" character varying(32),
    "code" integer,
    "acronym" character varying(64),
    "diagnostics" character varying(256),
    "description" character varying(4000),
    "category" smallint,
    PRIMARY KEY ("id")
);

CREATE TABLE doma_panda."filestable4" (
    "row_id" bigint NOT NULL,
    "pandaid" bigint,
    "modificationtime" timestamp without time zone NOT NULL,
    "guid" character varying(64),
    "lfn" character varying(4000),
    "type" character varying(20),
    "dataset" character varying(255),
    "status" character varying(64),
    "proddblock" character varying(255),
    "proddblocktoken" character varying(250),
    "dispatchdblock" character varying(255),
    "dispatchdblocktoken" character varying(250),
    "destinationdblock" character varying(255),
    "destinationdblocktoken" character varying(250),
    "destinationse" character varying(250),
    "fsize" bigint,
    "md5sum" character varying(36),
    "checksum" character varying(36),
    "scope" character varying(30),
    "jeditaskid" bigint,
    "datasetid" bigint,
    "fileid" bigint,
    "attemptnr" smallint,
    PRIMARY KEY ("row_id", "modificationtime")
);

CREATE TABLE doma_panda."global_shares" (
    "name" character varying(32) NOT NULL,
    "value" smallint,
    "parent" character varying(32),
    "prodsourcelabel" character varying(100),
    "workinggroup" character varying(100),
    "campaign" character varying(100),
    "processingtype" character varying(100),
    "vo" character varying(32),
    "queue_id" integer,
    "throttled" character(1),
    "transpath" character varying(128),
    "rtype" character varying(32),
    PRIMARY KEY ("name")
);

CREATE TABLE doma_panda."harvester_command_lock" (
    "harvester_id" character varying(50) NOT NULL,
    "computingsite" character varying(128) NOT NULL,
    "resourcetype" character varying(56) NOT NULL,
    "command" character varying(200) NOT NULL,
    "lockedtime" timestamp without time zone,
    "lockedby" character varying(56),
    PRIMARY KEY ("harvester_id", "computingsite", "resourcetype", "command")
);

CREATE TABLE doma_panda."harvester_commands" (
    "command_id" bigint NOT NULL,
    "command" character varying(200),
    "harvester_id" character varying(50),
    "ack_requested" smallint,
    "creation_date" timestamp without time zone,
    "status" character varying(32),
    "status_date" timestamp without time zone,
    "params" text,
    PRIMARY KEY ("command_id")
);

CREATE TABLE doma_panda."harvester_dialogs" (
    "harvester_id" character varying(50),
    "diagid" bigint,
    "modulename" character varying(100),
    "identifier" character varying(100),
    "creationtime" timestamp without time zone,
    "messagelevel" character varying(10),
    "diagmessage" character varying(500)
);

CREATE TABLE doma_panda."harvester_instances" (
    "harvester_id" character varying(50) NOT NULL,
    "description" character varying(200),
    "starttime" timestamp without time zone,
    "owner" character varying(100),
    "hostname" character varying(100),
    "lastupdate" timestamp without time zone,
    "sw_version" character varying(50),
    "commit_stamp" character varying(100),
    PRIMARY KEY ("harvester_id")
);

CREATE TABLE doma_panda."harvester_metrics" (
    "harvester_id" character varying(50),
    "creation_time" timestamp without time zone,
    "harvester_host" character varying(100),
    "metrics" character varying(4000)
);

CREATE TABLE doma_panda."harvester_rel_jobs_workers" (
    "harvesterid" character varying(50) NOT NULL,
    "workerid" bigint NOT NULL,
    "pandaid" bigint NOT NULL,
    "lastupdate" timestamp without time zone,
    PRIMARY KEY ("harvesterid", "workerid", "pandaid")
);

CREATE TABLE doma_panda."harvester_slots" (
    "pandaqueuename" character varying(128),
    "gshare" character varying(32),
    "resourcetype" character varying(56),
    "numslots" bigint,
    "modificationtime" timestamp without time zone,
    "expirationtime" timestamp without time zone
);

CREATE TABLE doma_panda."harvester_worker_stats" (
    "harvester_id" character varying(50) NOT NULL,
    "computingsite" character varying(128) NOT NULL,
    "resourcetype" character varying(56) NOT NULL,
    "status" character varying(80) NOT NULL,
    "jobtype" character varying(52) NOT NULL,
    "n_workers" integer,
    "lastupdate" timestamp without time zone,
    PRIMARY KEY ("harvester_id", "computingsite", "resourcetype", "status", "jobtype")
);

CREATE TABLE doma_panda."harvester_workers" (
    "harvesterid" character varying(50) NOT NULL,
    "workerid" bigint NOT NULL,
    "lastupdate" timestamp without time zone NOT NULL,
    "status" character varying(80),
    "batchid" character varying(80),
    "nodeid" character varying(80),
    "queuename" character varying(80),
    "computingsite" character varying(128),
    "submittime" timestamp without time zone,
    "starttime" timestamp without time zone,
    "endtime" timestamp without time zone,
    "ncore" integer,
    "errorcode" integer,
    "stdout" character varying(250),
    "stderr" character varying(250),
    "batchlog" character varying(250),
    "resourcetype" character varying(56),
    "nativeexitcode" integer,
    "nativestatus" character varying(80),
    "diagmessage" character varying(500),
    "computingelement" character varying(128),
    "njobs" integer,
    "submissionhost" character varying(128),
    "harvesterhost" character varying(128),
    "jdl" character varying(250),
    "jobtype" character varying(52),
    "pilotstarttime" timestamp without time zone,
    "pilotendtime" timestamp without time zone,
    "pilotstatus" character varying(80),
    "pilotstatussynctime" timestamp without time zone,
    "minramcount" integer,
    PRIMARY KEY ("harvesterid", "workerid", "lastupdate")
);

CREATE TABLE doma_panda."jedi_aux_status_mintaskid" (
    "status" character varying(64) NOT NULL,
    "min_jeditaskid" bigint,
    PRIMARY KEY ("status")
);

CREATE TABLE doma_panda."jedi_dataset_contents" (
    "jeditaskid" bigint NOT NULL,
    "datasetid" bigint NOT NULL,
    "fileid" bigint NOT NULL,
    "creationdate" timestamp without time zone,
    "lastattempttime" timestamp without time zone,
    "lfn" character varying(4000),
    "guid" character varying(64),
    "type" character varying(20),
    "status" character varying(64),
    "fsize" bigint,
    "checksum" character varying(36),
    "scope" character varying(30),
    "attemptnr" smallint,
    "maxattempt" smallint,
    "nevents" bigint,
    "keeptrack" smallint,
    "startevent" bigint,
    "endevent" bigint,
    "firstevent" bigint,
    "boundaryid" bigint,
    "pandaid" bigint,
    "failedattempt" smallint,
    "lumiblocknr" bigint,
    "outpandaid" bigint,
    "maxfailure" smallint,
    "ramcount" bigint,
    "is_waiting" character(1),
    "jobsetid" bigint,
    "proc_status" character varying(64),
    "constituent_id" bigint,
    PRIMARY KEY ("jeditaskid", "datasetid", "fileid")
);

CREATE TABLE doma_panda."jedi_dataset_locality" (
    "jeditaskid" bigint NOT NULL,
    "datasetid" bigint NOT NULL,
    "rse" character varying(64) NOT NULL,
    "timestamp" timestamp without time zone,
    PRIMARY KEY ("jeditaskid", "datasetid", "rse")
);

CREATE TABLE doma_panda."jedi_datasets" (
    "jeditaskid" bigint NOT NULL,
    "datasetid" bigint NOT NULL,
    "datasetname" character varying(255),
    "type" character varying(20),
    "creationtime" timestamp without time zone,
    "modificationtime" timestamp without time zone,
    "vo" character varying(32),
    "cloud" character varying(10),
    "site" character varying(60),
    "masterid" bigint,
    "provenanceid" bigint,
    "containername" character varying(255),
    "status" character varying(20),
    "state" character varying(20),
    "statechecktime" timestamp without time zone,
    "statecheckexpiration" timestamp without time zone,
    "frozentime" timestamp without time zone,
    "nfiles" bigint,
    "nfilestobeused" bigint,
    "nfilesused" bigint,
    "nfilesonhold" bigint,
    "nevents" bigint,
    "neventstobeused" bigint,
    "neventsused" bigint,
    "lockedby" character varying(56),
    "lockedtime" timestamp without time zone,
    "nfilesfinished" bigint,
    "nfilesfailed" bigint,
    "attributes" character varying(100),
    "streamname" character varying(20),
    "storagetoken" character varying(100),
    "destination" character varying(60),
    "templateid" bigint,
    "nfileswaiting" bigint,
    "nfilesmissing" bigint,
    PRIMARY KEY ("jeditaskid", "datasetid")
);

CREATE TABLE doma_panda."jedi_events" (
    "jeditaskid" bigint NOT NULL,
    "pandaid" bigint NOT NULL,
    "fileid" bigint NOT NULL,
    "job_processid" bigint NOT NULL,
    "datasetid" bigint,
    "status" smallint,
    "def_min_eventid" bigint,
    "def_max_eventid" bigint,
    "processed_upto_eventid" bigint,
    "attemptnr" smallint,
    "objstore_id" bigint,
    "event_offset" bigint,
    "is_jumbo" smallint,
    "ziprow_id" bigint,
    "file_not_deleted" character(1),
    "error_code" integer,
    "path_convention" smallint,
    "error_diag" character varying(500),
    PRIMARY KEY ("jeditaskid", "pandaid", "fileid", "job_processid")
);

CREATE TABLE doma_panda."jedi_job_retry_history" (
    "jeditaskid" bigint,
    "oldpandaid" bigint,
    "newpandaid" bigint,
    "ins_utc_tstamp" timestamp without time zone,
    "relationtype" character varying(32),
    "originpandaid" bigint
);

CREATE TABLE doma_panda."jedi_jobparams_template" (
    "jeditaskid" bigint NOT NULL,
    "jobparamstemplate" text,
    PRIMARY KEY ("jeditaskid")
);

CREATE TABLE doma_panda."jedi_output_template" (
    "jeditaskid" bigint NOT NULL,
    "datasetid" bigint NOT NULL,
    "outtempid" bigint NOT NULL,
    "filenametemplate" character varying(256),
    "maxserialnr" integer,
    "serialnr" integer,
    "sourcename" character varying(256),
    "streamname" character varying(20),
    "outtype" character varying(20),
    PRIMARY KEY ("jeditaskid", "datasetid", "outtempid")
);

CREATE TABLE doma_panda."jedi_process_lock" (
    "vo" character varying(32) NOT NULL,
    "prodsourcelabel" character varying(20) NOT NULL,
    "workqueue_id" integer NOT NULL,
    "cloud" character varying(10) NOT NULL,
    "lockedby" character varying(56),
    "lockedtime" timestamp without time zone,
    "resource_type" character varying(56) NOT NULL,
    "component" character varying(56) NOT NULL,
    PRIMARY KEY ("vo", "prodsourcelabel", "workqueue_id", "cloud", "resource_type", "component")
);

CREATE TABLE doma_panda."jedi_taskparams" (
    "jeditaskid" bigint NOT NULL,
    "taskparams" text,
    PRIMARY KEY ("jeditaskid")
);

CREATE TABLE doma_panda."jedi_tasks" (
    "jeditaskid" bigint NOT NULL,
    "taskname" character varying(256),
    "status" character varying(64),
    "username" character varying(128),
    "creationdate" timestamp without time zone,
    "modificationtime" timestamp without time zone,
    "reqid" integer,
    "oldstatus" character varying(64),
    "cloud" character varying(10),
    "site" character varying(60),
    "starttime" timestamp without time zone,
    "endtime" timestamp without time zone,
    "frozentime" timestamp without time zone,
    "prodsourcelabel" character varying(20),
    "workinggroup" character varying(32),
    "vo" character varying(32),
    "corecount" integer,
    "tasktype" character varying(64),
    "processingtype" character varying(64),
    "taskpriority" integer,
    "currentpriority" integer,
    "architecture" character varying(256),
    "transuses" character varying(64),
    "transhome" character varying(128),
    "transpath" character varying(128),
    "lockedby" character varying(56),
    "lockedtime" timestamp without time zone,
    "termcondition" character varying(100),
    "splitrule" character varying(200),
    "walltime" integer,
    "walltimeunit" character varying(32),
    "outdiskcount" integer,
    "outdiskunit" character varying(32),
    "workdiskcount" integer,
    "workdiskunit" character varying(32),
    "ramcount" integer,
    "ramunit" character varying(32),
    "iointensity" integer,
    "iointensityunit" character varying(32),
    "workqueue_id" integer,
    "progress" smallint,
    "failurerate" smallint,
    "errordialog" character varying(510),
    "countrygroup" character varying(20),
    "parent_tid" bigint,
    "eventservice" smallint,
    "ticketid" character varying(50),
    "ticketsystemtype" character varying(32),
    "statechangetime" timestamp without time zone,
    "superstatus" character varying(64),
    "campaign" character varying(32),
    "mergeramcount" integer,
    "mergeramunit" character varying(32),
    "mergewalltime" integer,
    "mergewalltimeunit" character varying(32),
    "throttledtime" timestamp without time zone,
    "numthrottled" smallint,
    "mergecorecount" integer,
    "goal" smallint,
    "assessmenttime" timestamp without time zone,
    "cputime" integer,
    "cputimeunit" character varying(32),
    "cpuefficiency" smallint,
    "basewalltime" integer,
    "amiflag_old" character varying(10),
    "amiflag" integer,
    "nucleus" character varying(52),
    "baseramcount" integer,
    "ttcrequested" timestamp without time zone,
    "ttcpredicted" timestamp without time zone,
    "ttcpredictiondate" timestamp without time zone,
    "rescuetime" timestamp without time zone,
    "requesttype" character varying(32),
    "gshare" character varying(32),
    "usejumbo" character(1),
    "resource_type" character varying(56),
    "diskio" integer,
    "diskiounit" character varying(32),
    "memory_leak_core" bigint,
    "memory_leak_x2" numeric(14,3),
    "attemptnr" smallint,
    "container_name" character varying(200),
    "job_label" character varying(20),
    "realmodificationtime" timestamp without time zone,
    "framework" character varying(50),
    "activatedtime" timestamp without time zone,
    "queuedtime" timestamp without time zone,
    "actiontime" timestamp without time zone,
    PRIMARY KEY ("jeditaskid")
);

CREATE TABLE doma_panda."jedi_work_queue" (
    "queue_id" integer NOT NULL,
    "queue_name" character varying(32),
    "queue_type" character varying(32),
    "vo" character varying(32),
    "status" character varying(64),
    "partitionid" integer,
    "stretchable" smallint,
    "queue_share" smallint,
    "queue_order" smallint,
    "criteria" character varying(256),
    "variables" character varying(256),
    "queue_function" character varying(32),
    PRIMARY KEY ("queue_id")
);

CREATE TABLE doma_panda."job_metrics" (
    "pandaid" bigint NOT NULL,
    "jeditaskid" bigint,
    "creationtime" timestamp without time zone,
    "modificationtime" timestamp without time zone NOT NULL,
    "data" text,
    PRIMARY KEY ("pandaid", "modificationtime")
);

CREATE TABLE doma_panda."job_output_report" (
    "pandaid" bigint NOT NULL,
    "prodsourcelabel" character varying(20),
    "jobstatus" character varying(15),
    "attemptnr" smallint NOT NULL,
    "data" text,
    "timestamp" timestamp without time zone,
    "lockedby" character varying(56),
    "lockedtime" timestamp without time zone,
    PRIMARY KEY ("pandaid", "attemptnr")
);

CREATE TABLE doma_panda."job_stats_hp" (
    "ts" timestamp without time zone,
    "prodsourcelabel" character varying(20),
    "cloud" character varying(50),
    "resource_type" character varying(56),
    "gshare" character varying(32),
    "jobstatus" character varying(15),
    "workqueue_id" integer,
    "vo" character varying(32),
    "max_priority" bigint,
    "max_priority_count" bigint
);

CREATE TABLE doma_panda."jobparamstable" (
    "pandaid" bigint NOT NULL,
    "modificationtime" timestamp without time zone NOT NULL,
    "jobparameters" text,
    PRIMARY KEY ("pandaid", "modificationtime")
);

CREATE TABLE doma_panda."jobs_share_stats" (
    "ts" timestamp without time zone,
    "gshare" character varying(32),
    "computingsite" character varying(128),
    "jobstatus" character varying(15),
    "maxpriority" bigint,
    "prorated_diskio_avg" numeric(11,2),
    "prorated_mem_avg" numeric(11,2),
    "njobs" bigint,
    "hs" bigint,
    "vo" character varying(32),
    "workqueue_id" integer,
    "resource_type" character varying(56),
    "nucleus" character varying(52)
);

CREATE TABLE doma_panda."jobs_statuslog" (
    "pandaid" bigint,
    "modificationtime" timestamp without time zone,
    "jobstatus" character varying(15),
    "prodsourcelabel" character varying(20),
    "cloud" character varying(50),
    "computingsite" character varying(128),
    "modificationhost" character varying(128),
    "modiftime_extended" timestamp without time zone
);

CREATE TABLE doma_panda."jobsactive4" (
    "pandaid" bigint NOT NULL,
    "jobdefinitionid" bigint,
    "schedulerid" character varying(128),
    "pilotid" character varying(200),
    "creationtime" timestamp without time zone,
    "creationhost" character varying(128),
    "modificationtime" timestamp without time zone,
    "modificationhost" character varying(128),
    "atlasrelease" character varying(64),
    "transformation" character varying(250),
    "homepackage" character varying(80),
    "prodserieslabel" character varying(20),
    "prodsourcelabel" character varying(20),
    "produserid" character varying(250),
    "assignedpriority" integer,
    "currentpriority" integer,
    "attemptnr" smallint,
    "maxattempt" smallint,
    "jobstatus" character varying(15),
    "jobname" character varying(256),
    "maxcpucount" bigint,
    "maxcpuunit" character varying(32),
    "maxdiskcount" bigint,
    "maxdiskunit" character(4),
    "ipconnectivity" character(5),
    "minramcount" bigint,
    "minramunit" character(2),
    "starttime" timestamp without time zone,
    "endtime" timestamp without time zone,
    "cpuconsumptiontime" numeric(20,0),
    "cpuconsumptionunit" character varying(128),
    "commandtopilot" character varying(250),
    "transexitcode" character varying(128),
    "piloterrorcode" integer,
    "piloterrordiag" character varying(500),
    "exeerrorcode" integer,
    "exeerrordiag" character varying(500),
    "superrorcode" integer,
    "superrordiag" character varying(250),
    "ddmerrorcode" integer,
    "ddmerrordiag" character varying(500),
    "brokerageerrorcode" integer,
    "brokerageerrordiag" character varying(250),
    "jobdispatchererrorcode" integer,
    "jobdispatchererrordiag" character varying(250),
    "taskbuffererrorcode" integer,
    "taskbuffererrordiag" character varying(300),
    "computingsite" character varying(128),
    "computingelement" character varying(128),
    "jobparameters" text,
    "metadata" text,
    "proddblock" character varying(255),
    "dispatchdblock" character varying(255),
    "destinationdblock" character varying(255),
    "destinationse" character varying(250),
    "nevents" bigint,
    "grid" character varying(50),
    "cloud" character varying(50),
    "cpuconversion" numeric(9,4),
    "sourcesite" character varying(36),
    "destinationsite" character varying(36),
    "transfertype" character varying(10),
    "taskid" integer,
    "cmtconfig" character varying(250),
    "statechangetime" timestamp without time zone,
    "proddbupdatetime" timestamp without time zone,
    "lockedby" character varying(128),
    "relocationflag" smallint,
    "jobexecutionid" bigint,
    "vo" character varying(32),
    "pilottiming" character varying(100),
    "workinggroup" character varying(20),
    "processingtype" character varying(64),
    "produsername" character varying(60),
    "ninputfiles" integer,
    "countrygroup" character varying(20),
    "batchid" character varying(80),
    "parentid" bigint,
    "specialhandling" character varying(80),
    "jobsetid" bigint,
    "corecount" smallint,
    "ninputdatafiles" integer,
    "inputfiletype" character varying(32),
    "inputfileproject" character varying(64),
    "inputfilebytes" bigint,
    "noutputdatafiles" integer,
    "outputfilebytes" bigint,
    "jobmetrics" character varying(500),
    "workqueue_id" integer,
    "jeditaskid" bigint,
    "jobsubstatus" character varying(80),
    "actualcorecount" integer,
    "reqid" integer,
    "maxrss" bigint,
    "maxvmem" bigint,
    "maxswap" bigint,
    "maxpss" bigint,
    "avgrss" bigint,
    "avgvmem" bigint,
    "avgswap" bigint,
    "avgpss" bigint,
    "maxwalltime" bigint,
    "nucleus" character varying(52),
    "eventservice" smallint,
    "failedattempt" smallint,
    "hs06sec" bigint,
    "gshare" character varying(32),
    "hs06" bigint,
    "totrchar" bigint,
    "totwchar" bigint,
    "totrbytes" bigint,
    "totwbytes" bigint,
    "raterchar" bigint,
    "ratewchar" bigint,
    "raterbytes" bigint,
    "ratewbytes" bigint,
    "resource_type" character varying(56),
    "diskio" integer,
    "memory_leak" bigint,
    "memory_leak_x2" numeric(14,3),
    "container_name" character varying(200),
    "job_label" character varying(20),
    "meancorecount" numeric(8,2),
    "gco2_regional" numeric(10,2),
    "gco2_global" numeric(10,2),
    "cpu_architecture_level" character varying(20),
    "outputfiletype" character varying(32),
    PRIMARY KEY ("pandaid")
);

CREATE TABLE doma_panda."jobsarchived4" (
    "pandaid" bigint NOT NULL,
    "modificationtime" timestamp without time zone NOT NULL,
    "jobdefinitionid" bigint,
    "schedulerid" character varying(128),
    "pilotid" character varying(200),
    "creationtime" timestamp without time zone,
    "creationhost" character varying(128),
    "modificationhost" character varying(128),
    "atlasrelease" character varying(64),
    "transformation" character varying(250),
    "homepackage" character varying(80),
    "prodserieslabel" character varying(20),
    "prodsourcelabel" character varying(20),
    "produserid" character varying(250),
    "assignedpriority" integer,
    "currentpriority" integer,
    "attemptnr" smallint,
    "maxattempt" smallint,
    "jobstatus" character varying(15),
    "jobname" character varying(256),
    "maxcpucount" bigint,
    "maxcpuunit" character varying(32),
    "maxdiskcount" bigint,
    "maxdiskunit" character(4),
    "ipconnectivity" character(5),
    "minramcount" bigint,
    "minramunit" character(2),
    "starttime" timestamp without time zone,
    "endtime" timestamp without time zone,
    "cpuconsumptiontime" numeric(20,0),
    "cpuconsumptionunit" character varying(128),
    "commandtopilot" character varying(250),
    "transexitcode" character varying(128),
    "piloterrorcode" integer,
    "piloterrordiag" character varying(500),
    "exeerrorcode" integer,
    "exeerrordiag" character varying(500),
    "superrorcode" integer,
    "superrordiag" character varying(250),
    "ddmerrorcode" integer,
    "ddmerrordiag" character varying(700),
    "brokerageerrorcode" integer,
    "brokerageerrordiag" character varying(250),
    "jobdispatchererrorcode" integer,
    "jobdispatchererrordiag" character varying(250),
    "taskbuffererrorcode" integer,
    "taskbuffererrordiag" character varying(300),
    "computingsite" character varying(128),
    "computingelement" character varying(128),
    "proddblock" character varying(255),
    "dispatchdblock" character varying(255),
    "destinationdblock" character varying(255),
    "destinationse" character varying(250),
    "nevents" bigint,
    "grid" character varying(50),
    "cloud" character varying(50),
    "cpuconversion" numeric(9,4),
    "sourcesite" character varying(36),
    "destinationsite" character varying(36),
    "transfertype" character varying(10),
    "taskid" integer,
    "cmtconfig" character varying(250),
    "statechangetime" timestamp without time zone,
    "proddbupdatetime" timestamp without time zone,
    "lockedby" character varying(128),
    "relocationflag" smallint,
    "jobexecutionid" bigint,
    "vo" character varying(32),
    "pilottiming" character varying(100),
    "workinggroup" character varying(20),
    "processingtype" character varying(64),
    "produsername" character varying(60),
    "ninputfiles" integer,
    "countrygroup" character varying(20),
    "batchid" character varying(80),
    "parentid" bigint,
    "specialhandling" character varying(80),
    "jobsetid" bigint,
    "corecount" smallint,
    "jobparameters" text,
    "metadata" text,
    "ninputdatafiles" integer,
    "inputfiletype" character varying(32),
    "inputfileproject" character varying(64),
    "inputfilebytes" bigint,
    "noutputdatafiles" integer,
    "outputfilebytes" bigint,
    "jobmetrics" character varying(500),
    "workqueue_id" integer,
    "jeditaskid" bigint,
    "jobsubstatus" character varying(80),
    "actualcorecount" integer,
    "reqid" integer,
    "maxrss" bigint,
    "maxvmem" bigint,
    "maxswap" bigint,
    "maxpss" bigint,
    "avgrss" bigint,
    "avgvmem" bigint,
    "avgswap" bigint,
    "avgpss" bigint,
    "maxwalltime" bigint,
    "nucleus" character varying(52),
    "eventservice" smallint,
    "failedattempt" smallint,
    "hs06sec" bigint,
    "gshare" character varying(32),
    "hs06" bigint,
    "totrchar" bigint,
    "totwchar" bigint,
    "totrbytes" bigint,
    "totwbytes" bigint,
    "raterchar" bigint,
    "ratewchar" bigint,
    "raterbytes" bigint,
    "ratewbytes" bigint,
    "resource_type" character varying(56),
    "diskio" integer,
    "memory_leak" bigint,
    "memory_leak_x2" numeric(14,3),
    "container_name" character varying(200),
    "job_label" character varying(20),
    "meancorecount" numeric(8,2),
    "gco2_regional" numeric(10,2),
    "gco2_global" numeric(10,2),
    "cpu_architecture_level" character varying(20),
    "outputfiletype" character varying(32),
    PRIMARY KEY ("pandaid", "modificationtime")
);

CREATE TABLE doma_panda."jobsdebug" (
    "pandaid" bigint NOT NULL,
    "stdout" character varying(2048),
    PRIMARY KEY ("pandaid")
);

CREATE TABLE doma_panda."jobsdefined4" (
    "pandaid" bigint NOT NULL,
    "jobdefinitionid" bigint,
    "schedulerid" character varying(128),
    "pilotid" character varying(200),
    "creationtime" timestamp without time zone,
    "creationhost" character varying(128),
    "modificationtime" timestamp without time zone,
    "modificationhost" character varying(128),
    "atlasrelease" character varying(64),
    "transformation" character varying(250),
    "homepackage" character varying(80),
    "prodserieslabel" character varying(20),
    "prodsourcelabel" character varying(20),
    "produserid" character varying(250),
    "assignedpriority" integer,
    "currentpriority" integer,
    "attemptnr" smallint,
    "maxattempt" smallint,
    "jobstatus" character varying(15),
    "jobname" character varying(256),
    "maxcpucount" integer,
    "maxcpuunit" character varying(32),
    "maxdiskcount" integer,
    "maxdiskunit" character(4),
    "ipconnectivity" character(5),
    "minramcount" integer,
    "minramunit" character(2),
    "starttime" timestamp without time zone,
    "endtime" timestamp without time zone,
    "cpuconsumptiontime" numeric(20,0),
    "cpuconsumptionunit" character varying(128),
    "commandtopilot" character varying(250),
    "transexitcode" character varying(128),
    "piloterrorcode" integer,
    "piloterrordiag" character varying(250),
    "exeerrorcode" integer,
    "exeerrordiag" character varying(250),
    "superrorcode" integer,
    "superrordiag" character varying(250),
    "ddmerrorcode" integer,
    "ddmerrordiag" character varying(250),
    "brokerageerrorcode" integer,
    "brokerageerrordiag" character varying(250),
    "jobdispatchererrorcode" integer,
    "jobdispatchererrordiag" character varying(250),
    "taskbuffererrorcode" integer,
    "taskbuffererrordiag" character varying(250),
    "computingsite" character varying(128),
    "computingelement" character varying(128),
    "jobparameters" text,
    "metadata" text,
    "proddblock" character varying(255),
    "dispatchdblock" character varying(255),
    "destinationdblock" character varying(255),
    "destinationse" character varying(250),
    "nevents" integer,
    "grid" character varying(32),
    "cloud" character varying(32),
    "cpuconversion" numeric(9,4),
    "sourcesite" character varying(36),
    "destinationsite" character varying(36),
    "transfertype" character varying(10),
    "taskid" integer,
    "cmtconfig" character varying(250),
    "statechangetime" timestamp without time zone,
    "proddbupdatetime" timestamp without time zone,
    "lockedby" character varying(128),
    "relocationflag" smallint,
    "jobexecutionid" bigint,
    "vo" character varying(32),
    "pilottiming" character varying(100),
    "workinggroup" character varying(20),
    "processingtype" character varying(64),
    "produsername" character varying(60),
    "ninputfiles" integer,
    "countrygroup" character varying(20),
    "batchid" character varying(80),
    "parentid" bigint,
    "specialhandling" character varying(80),
    "jobsetid" bigint,
    "corecount" smallint,
    "ninputdatafiles" integer,
    "inputfiletype" character varying(32),
    "inputfileproject" character varying(64),
    "inputfilebytes" bigint,
    "noutputdatafiles" integer,
    "outputfilebytes" bigint,
    "jobmetrics" character varying(500),
    "workqueue_id" integer,
    "jeditaskid" bigint,
    "jobsubstatus" character varying(80),
    "actualcorecount" integer,
    "reqid" integer,
    "maxrss" bigint,
    "maxvmem" bigint,
    "maxswap" bigint,
    "maxpss" bigint,
    "avgrss" bigint,
    "avgvmem" bigint,
    "avgswap" bigint,
    "avgpss" bigint,
    "maxwalltime" bigint,
    "nucleus" character varying(52),
    "eventservice" smallint,
    "failedattempt" smallint,
    "hs06sec" bigint,
    "gshare" character varying(32),
    "hs06" bigint,
    "totrchar" bigint,
    "totwchar" bigint,
    "totrbytes" bigint,
    "totwbytes" bigint,
    "raterchar" bigint,
    "ratewchar" bigint,
    "raterbytes" bigint,
    "ratewbytes" bigint,
    "resource_type" character varying(56),
    "diskio" integer,
    "memory_leak" bigint,
    "memory_leak_x2" numeric(14,3),
    "container_name" character varying(200),
    "job_label" character varying(20),
    "meancorecount" numeric(8,2),
    "gco2_regional" numeric(10,2),
    "gco2_global" numeric(10,2),
    "cpu_architecture_level" character varying(20),
    "outputfiletype" character varying(32),
    PRIMARY KEY ("pandaid")
);

CREATE TABLE doma_panda."jobsdefined_share_stats" (
    "ts" timestamp without time zone,
    "gshare" character varying(32),
    "computingsite" character varying(128),
    "jobstatus" character varying(15),
    "maxpriority" bigint,
    "prorated_diskio_avg" numeric(11,2),
    "prorated_mem_avg" numeric(11,2),
    "njobs" bigint,
    "hs" bigint,
    "vo" character varying(32),
    "workqueue_id" integer,
    "resource_type" character varying(56),
    "nucleus" character varying(52)
);

CREATE TABLE doma_panda."jobswaiting4" (
    "pandaid" bigint NOT NULL,
    "jobdefinitionid" bigint,
    "schedulerid" character varying(128),
    "pilotid" character varying(200),
    "creationtime" timestamp without time zone,
    "creationhost" character varying(128),
    "modificationtime" timestamp without time zone,
    "modificationhost" character varying(128),
    "atlasrelease" character varying(64),
    "transformation" character varying(250),
    "homepackage" character varying(80),
    "prodserieslabel" character varying(20),
    "prodsourcelabel" character varying(20),
    "produserid" character varying(250),
    "assignedpriority" integer,
    "currentpriority" integer,
    "attemptnr" smallint,
    "maxattempt" smallint,
    "jobstatus" character varying(15),
    "jobname" character varying(256),
    "maxcpucount" integer,
    "maxcpuunit" character varying(32),
    "maxdiskcount" integer,
    "maxdiskunit" character(4),
    "ipconnectivity" character(5),
    "minramcount" integer,
    "minramunit" character(2),
    "starttime" timestamp without time zone,
    "endtime" timestamp without time zone,
    "cpuconsumptiontime" numeric(20,0),
    "cpuconsumptionunit" character varying(128),
    "commandtopilot" character varying(250),
    "transexitcode" character varying(128),
    "piloterrorcode" integer,
    "piloterrordiag" character varying(250),
    "exeerrorcode" integer,
    "exeerrordiag" character varying(250),
    "superrorcode" integer,
    "superrordiag" character varying(250),
    "ddmerrorcode" integer,
    "ddmerrordiag" character varying(250),
    "brokerageerrorcode" integer,
    "brokerageerrordiag" character varying(250),
    "jobdispatchererrorcode" integer,
    "jobdispatchererrordiag" character varying(250),
    "taskbuffererrorcode" integer,
    "taskbuffererrordiag" character varying(250),
    "computingsite" character varying(128),
    "computingelement" character varying(128),
    "jobparameters" text,
    "metadata" text,
    "proddblock" character varying(255),
    "dispatchdblock" character varying(255),
    "destinationdblock" character varying(255),
    "destinationse" character varying(250),
    "nevents" integer,
    "grid" character varying(32),
    "cloud" character varying(32),
    "cpuconversion" numeric(9,4),
    "sourcesite" character varying(36),
    "destinationsite" character varying(36),
    "transfertype" character varying(10),
    "taskid" integer,
    "cmtconfig" character varying(250),
    "statechangetime" timestamp without time zone,
    "proddbupdatetime" timestamp without time zone,
    "lockedby" character varying(128),
    "relocationflag" smallint,
    "jobexecutionid" bigint,
    "vo" character varying(32),
    "pilottiming" character varying(100),
    "workinggroup" character varying(20),
    "processingtype" character varying(64),
    "produsername" character varying(60),
    "ninputfiles" integer,
    "countrygroup" character varying(20),
    "batchid" character varying(80),
    "parentid" bigint,
    "specialhandling" character varying(80),
    "jobsetid" bigint,
    "corecount" smallint,
    "ninputdatafiles" integer,
    "inputfiletype" character varying(32),
    "inputfileproject" character varying(64),
    "inputfilebytes" bigint,
    "noutputdatafiles" integer,
    "outputfilebytes" bigint,
    "jobmetrics" character varying(500),
    "workqueue_id" integer,
    "jeditaskid" bigint,
    "jobsubstatus" character varying(80),
    "actualcorecount" integer,
    "reqid" integer,
    "maxrss" bigint,
    "maxvmem" bigint,
    "maxswap" bigint,
    "maxpss" bigint,
    "avgrss" bigint,
    "avgvmem" bigint,
    "avgswap" bigint,
    "avgpss" bigint,
    "maxwalltime" bigint,
    "nucleus" character varying(52),
    "eventservice" smallint,
    "failedattempt" smallint,
    "hs06sec" bigint,
    "gshare" character varying(32),
    "hs06" bigint,
    "totrchar" bigint,
    "totwchar" bigint,
    "totrbytes" bigint,
    "totwbytes" bigint,
    "raterchar" bigint,
    "ratewchar" bigint,
    "raterbytes" bigint,
    "ratewbytes" bigint,
    "resource_type" character varying(56),
    "diskio" integer,
    "memory_leak" bigint,
    "memory_leak_x2" numeric(14,3),
    "container_name" character varying(200),
    "job_label" character varying(20),
    "meancorecount" numeric(8,2),
    "gco2_regional" numeric(10,2),
    "gco2_global" numeric(10,2),
    "cpu_architecture_level" character varying(20),
    "outputfiletype" character varying(32),
    PRIMARY KEY ("pandaid")
);

CREATE TABLE doma_panda."machine_heartbeat" (
    "machine_name" character varying(128) NOT NULL,
    "service_name" character varying(64),
    "last_seen" timestamp without time zone,
    PRIMARY KEY ("machine_name")
);

CREATE TABLE doma_panda."metatable" (
    "pandaid" bigint NOT NULL,
    "modificationtime" timestamp without time zone NOT NULL,
    "metadata" text,
    PRIMARY KEY ("pandaid", "modificationtime")
);

CREATE TABLE doma_panda."metrics" (
    "computingsite" character varying(128),
    "gshare" character varying(32),
    "metric" character varying(128),
    "value_json" json,
    "timestamp" timestamp without time zone
);

CREATE TABLE doma_panda."mv_jobsactive4_stats" (
    "cur_date" timestamp without time zone,
    "cloud" character varying(50),
    "computingsite" character varying(128),
    "countrygroup" character varying(20),
    "workinggroup" character varying(20),
    "relocationflag" smallint,
    "jobstatus" character varying(15),
    "processingtype" character varying(64),
    "prodsourcelabel" character varying(20),
    "currentpriority" bigint,
    "num_of_jobs" bigint,
    "vo" character varying(32),
    "workqueue_id" integer,
    "num_of_cores" bigint,
    "resource_type" character varying(56)
);

CREATE TABLE doma_panda."mv_running_jumbo_task_count" (
    "cur_date" timestamp without time zone,
    "vo" character varying(32),
    "cloud" character varying(10),
    "prodsourcelabel" character varying(20),
    "usejumbo" character(1),
    "status" character varying(64),
    "gshare" character varying(32),
    "workqueue_id" integer,
    "task_count" bigint
);

CREATE TABLE doma_panda."network_matrix_kv" (
    "src" character varying(256) NOT NULL,
    "dst" character varying(256) NOT NULL,
    "key" character varying(256) NOT NULL,
    "value" bigint,
    "ts" timestamp without time zone,
    PRIMARY KEY ("src", "dst", "key")
);

CREATE TABLE doma_panda."panda_ddm_relation" (
    "panda_site_name" character varying(52) NOT NULL,
    "ddm_endpoint_name" character varying(52) NOT NULL,
    "is_local" character(1),
    "roles" character varying(60),
    "order_read" integer,
    "order_write" integer,
    "default_read" character(1),
    "default_write" character(1),
    "scope" character varying(52) NOT NULL,
    PRIMARY KEY ("panda_site_name", "ddm_endpoint_name", "scope")
);

CREATE TABLE doma_panda."panda_site" (
    "panda_site_name" character varying(52) NOT NULL,
    "site_name" character varying(52),
    "storage_site_name" character varying(52),
    "default_ddm_endpoint" character varying(52),
    "is_local" character(1),
    PRIMARY KEY ("panda_site_name")
);

CREATE TABLE doma_panda."pandadb_version" (
    "component" character varying(100) NOT NULL,
    "major" integer,
    "minor" integer,
    "patch" integer,
    PRIMARY KEY ("component")
);

CREATE TABLE doma_panda."pandalog" (
    "bintime" timestamp without time zone,
    "name" character varying(30),
    "module" character varying(30),
    "loguser" character varying(80),
    "type" character varying(20),
    "pid" bigint,
    "loglevel" integer,
    "levelname" character varying(30),
    "time" character varying(30),
    "filename" character varying(100),
    "line" integer,
    "message" character varying(4000)
);

CREATE TABLE doma_panda."resource_types" (
    "resource_name" character varying(56) NOT NULL,
    "mincore" integer,
    "maxcore" integer,
    "minrampercore" integer,
    "maxrampercore" integer,
    PRIMARY KEY ("resource_name")
);

CREATE TABLE doma_panda."retryactions" (
    "retryaction_id" bigint NOT NULL,
    "retry_action" character varying(50),
    "active" character(1),
    "retry_description" character varying(250),
    PRIMARY KEY ("retryaction_id")
);

CREATE TABLE doma_panda."retryerrors" (
    "retryerror_id" bigint NOT NULL,
    "errorsource" character varying(256),
    "errorcode" bigint,
    "active" character(1),
    "retryaction" bigint,
    "errordiag" character varying(256),
    "parameters" character varying(256),
    "architecture" character varying(256),
    "release" character varying(64),
    "workqueue_id" integer,
    "description" character varying(250),
    "expiration_date" timestamp without time zone,
    PRIMARY KEY ("retryerror_id")
);

CREATE TABLE doma_panda."schedconfig_json" (
    "panda_queue" character varying(50) NOT NULL,
    "data" json,
    "last_update" timestamp without time zone,
    PRIMARY KEY ("panda_queue")
);

CREATE TABLE doma_panda."secrets" (
    "owner" character varying(60) NOT NULL,
    "updated_at" timestamp without time zone,
    "data" text,
    PRIMARY KEY ("owner")
);

CREATE TABLE doma_panda."site" (
    "site_name" character varying(52) NOT NULL,
    "role" character varying(256),
    "tier_level" smallint,
    "state" character varying(52),
    PRIMARY KEY ("site_name")
);

CREATE TABLE doma_panda."site_stats" (
    "site_name" character varying(52) NOT NULL,
    "key" character varying(52) NOT NULL,
    "value" bigint,
    "ts" timestamp without time zone,
    PRIMARY KEY ("site_name", "key")
);

CREATE TABLE doma_panda."sql_queue" (
    "topic" character varying(50) NOT NULL,
    "pandaid" bigint NOT NULL,
    "execution_order" integer NOT NULL,
    "jeditaskid" bigint,
    "creationtime" timestamp without time zone,
    "data" character varying(4000),
    PRIMARY KEY ("topic", "pandaid", "execution_order")
);

CREATE TABLE doma_panda."sw_tags" (
    "panda_queue" character varying(50),
    "data" text,
    "last_update" timestamp without time zone
);

CREATE TABLE doma_panda."tablepart4copying" (
    "table_name" character varying(30) NOT NULL,
    "partition_name" character varying(30) NOT NULL,
    "copied_to_arch" character varying(10) NOT NULL,
    "copying_done_on" timestamp without time zone,
    "deleted_on" timestamp without time zone,
    "data_verif_passed" character(3),
    "data_verified_on" timestamp without time zone,
    PRIMARY KEY ("table_name", "partition_name", "copied_to_arch")
);

CREATE TABLE doma_panda."task_attempts" (
    "jeditaskid" bigint NOT NULL,
    "attemptnr" integer NOT NULL,
    "starttime" timestamp without time zone NOT NULL,
    "endtime" timestamp without time zone,
    "startstatus" character varying(32),
    "endstatus" character varying(32),
    PRIMARY KEY ("jeditaskid", "attemptnr", "starttime")
);

CREATE TABLE doma_panda."task_evaluation" (
    "jeditaskid" bigint NOT NULL,
    "metric" character varying(128) NOT NULL,
    "value_json" text,
    "timestamp" timestamp without time zone,
    PRIMARY KEY ("jeditaskid", "metric")
);

CREATE TABLE doma_panda."task_metrics" (
    "jeditaskid" bigint NOT NULL,
    "creationtime" timestamp without time zone,
    "modificationtime" timestamp without time zone NOT NULL,
    "data" text,
    PRIMARY KEY ("jeditaskid", "modificationtime")
);

CREATE TABLE doma_panda."tasks_statuslog" (
    "jeditaskid" bigint,
    "modificationtime" timestamp without time zone,
    "status" character varying(64),
    "modificationhost" character varying(128),
    "attemptnr" smallint,
    "reason" character varying(255)
);

CREATE TABLE doma_panda."tmp_pandaids_relations" (
    "pandaid" bigint,
    "newjobid" bigint
);

CREATE TABLE doma_panda."total_walltime_cache" (
    "vo" character varying(32) NOT NULL,
    "agg_type" character varying(32) NOT NULL,
    "agg_key" character varying(32) NOT NULL,
    "prodsourcelabel" character varying(20) NOT NULL,
    "resource_type" character varying(56) NOT NULL,
    "total_walltime" bigint,
    "n_has_value" integer,
    "n_no_value" integer,
    PRIMARY KEY ("vo", "agg_type", "agg_key", "prodsourcelabel", "resource_type")
);

CREATE TABLE doma_panda."typical_num_input" (
    "vo" character varying(32) NOT NULL,
    "agg_type" character varying(32) NOT NULL,
    "agg_key" character varying(32) NOT NULL,
    "prodsourcelabel" character varying(20) NOT NULL,
    "processingtype" character varying(64) NOT NULL,
    "ninputdatafiles" integer,
    PRIMARY KEY ("vo", "agg_type", "agg_key", "prodsourcelabel", "processingtype")
);

CREATE TABLE doma_panda."worker_node" (
    "site" character varying(128) NOT NULL,
    "host_name" character varying(128) NOT NULL,
    "cpu_model" character varying(128) NOT NULL,
    "n_logical_cpus" integer,
    "n_sockets" integer,
    "cores_per_socket" integer,
    "threads_per_core" integer,
    "cpu_architecture" character varying(20),
    "cpu_architecture_level" character varying(20),
    "clock_speed" numeric(9,2),
    "total_memory" bigint,
    "last_seen" timestamp without time zone,
    "total_local_disk" bigint,
    "cpu_model_normalized" character varying(128),
    PRIMARY KEY ("site", "host_name", "cpu_model")
);

CREATE TABLE doma_panda."worker_node_gpus" (
    "site" character varying(128) NOT NULL,
    "host_name" character varying(128) NOT NULL,
    "vendor" character varying(128) NOT NULL,
    "model" character varying(128) NOT NULL,
    "count" integer,
    "vram" bigint,
    "architecture" character varying(128),
    "framework" character varying(128),
    "framework_version" character varying(20),
    "driver_version" character varying(20),
    "last_seen" timestamp without time zone,
    PRIMARY KEY ("site", "host_name", "vendor", "model")
);

CREATE TABLE doma_panda."worker_node_metrics" (
    "site" character varying(128) NOT NULL,
    "host_name" character varying(128) NOT NULL,
    "timestamp" timestamp without time zone NOT NULL,
    "key" character varying(20),
    "statistics" jsonb,
    PRIMARY KEY ("site", "host_name", "timestamp")
);

CREATE TABLE doma_panda."worker_node_queue" (
    "site" character varying(128) NOT NULL,
    "host_name" character varying(128) NOT NULL,
    "panda_queue" character varying(128) NOT NULL,
    "last_seen" timestamp without time zone,
    PRIMARY KEY ("site", "host_name", "panda_queue")
);

CREATE TABLE doma_panda."workflow_data" (
    "data_id" bigint NOT NULL,
    "name" character varying(256),
    "workflow_id" bigint,
    "source_step_id" bigint,
    "type" character varying(32),
    "status" character varying(32),
    "flavor" character varying(32),
    "target_id" character varying(256),
    "creation_time" timestamp without time zone,
    "start_time" timestamp without time zone,
    "end_time" timestamp without time zone,
    "modification_time" timestamp without time zone,
    "check_time" timestamp without time zone,
    "locked_by" character varying(64),
    "lock_time" timestamp without time zone,
    "metadata" jsonb,
    "parameters" jsonb,
    PRIMARY KEY ("data_id")
);

CREATE TABLE doma_panda."workflow_steps" (
    "step_id" bigint NOT NULL,
    "name" character varying(256),
    "workflow_id" bigint,
    "member_id" bigint,
    "type" character varying(32),
    "status" character varying(32),
    "flavor" character varying(32),
    "target_id" character varying(128),
    "creation_time" timestamp without time zone,
    "start_time" timestamp without time zone,
    "end_time" timestamp without time zone,
    "modification_time" timestamp without time zone,
    "check_time" timestamp without time zone,
    "locked_by" character varying(64),
    "lock_time" timestamp without time zone,
    "definition_json" jsonb,
    "parameters" jsonb,
    PRIMARY KEY ("step_id")
);

CREATE TABLE doma_panda."workflows" (
    "workflow_id" bigint NOT NULL,
    "name" character varying(256),
    "parent_id" bigint,
    "loop_count" bigint,
    "status" character varying(32),
    "prodsourcelabel" character varying(32),
    "username" character varying(128),
    "creation_time" timestamp without time zone,
    "start_time" timestamp without time zone,
    "end_time" timestamp without time zone,
    "modification_time" timestamp without time zone,
    "check_time" timestamp without time zone,
    "locked_by" character varying(64),
    "lock_time" timestamp without time zone,
    "raw_request_json" jsonb,
    "definition_json" jsonb,
    "parameters" jsonb,
    PRIMARY KEY ("workflow_id")
);

CREATE TABLE doma_pandaarch."filestable_arch" (
    "row_id" bigint,
    "pandaid" bigint,
    "modificationtime" timestamp without time zone,
    "creationtime" timestamp without time zone,
    "guid" character varying(64),
    "lfn" character varying(4000),
    "type" character varying(20),
    "fsize" bigint,
    "dataset" character varying(255),
    "status" character varying(64),
    "md5sum" character varying(40),
    "checksum" character varying(40),
    "proddblock" character varying(255),
    "proddblocktoken" character varying(250),
    "dispatchdblock" character varying(255),
    "dispatchdblocktoken" character varying(250),
    "destinationdblock" character varying(255),
    "destinationdblocktoken" character varying(250),
    "destinationse" character varying(250),
    "scope" character varying(30),
    "jeditaskid" bigint,
    "datasetid" bigint,
    "fileid" bigint,
    "attemptnr" smallint
);

CREATE TABLE doma_pandaarch."jobparamstable_arch" (
    "pandaid" bigint,
    "modificationtime" timestamp without time zone,
    "jobparameters" text
);

CREATE TABLE doma_pandaarch."jobsarchived" (
    "pandaid" bigint,
    "jobdefinitionid" bigint,
    "schedulerid" character varying(128),
    "pilotid" character varying(200),
    "creationtime" timestamp without time zone,
    "creationhost" character varying(128),
    "modificationtime" timestamp without time zone,
    "modificationhost" character varying(128),
    "atlasrelease" character varying(64),
    "transformation" character varying(250),
    "homepackage" character varying(80),
    "prodserieslabel" character varying(20),
    "prodsourcelabel" character varying(20),
    "produserid" character varying(250),
    "assignedpriority" integer,
    "currentpriority" integer,
    "attemptnr" smallint,
    "maxattempt" smallint,
    "jobstatus" character varying(15),
    "jobname" character varying(256),
    "maxcpucount" bigint,
    "maxcpuunit" character varying(32),
    "maxdiskcount" bigint,
    "maxdiskunit" character(4),
    "ipconnectivity" character(5),
    "minramcount" bigint,
    "minramunit" character(4),
    "starttime" timestamp without time zone,
    "endtime" timestamp without time zone,
    "cpuconsumptiontime" numeric(20,0),
    "cpuconsumptionunit" character varying(128),
    "commandtopilot" character varying(250),
    "transexitcode" character varying(128),
    "piloterrorcode" integer,
    "piloterrordiag" character varying(500),
    "exeerrorcode" integer,
    "exeerrordiag" character varying(500),
    "superrorcode" integer,
    "superrordiag" character varying(250),
    "ddmerrorcode" integer,
    "ddmerrordiag" character varying(700),
    "brokerageerrorcode" integer,
    "brokerageerrordiag" character varying(250),
    "jobdispatchererrorcode" integer,
    "jobdispatchererrordiag" character varying(250),
    "taskbuffererrorcode" integer,
    "taskbuffererrordiag" character varying(300),
    "computingsite" character varying(128),
    "computingelement" character varying(128),
    "proddblock" character varying(255),
    "dispatchdblock" character varying(255),
    "destinationdblock" character varying(255),
    "destinationse" character varying(250),
    "nevents" bigint,
    "grid" character varying(50),
    "cloud" character varying(50),
    "cpuconversion" numeric(9,4),
    "sourcesite" character varying(36),
    "destinationsite" character varying(36),
    "transfertype" character varying(10),
    "taskid" integer,
    "cmtconfig" character varying(250),
    "statechangetime" timestamp without time zone,
    "proddbupdatetime" timestamp without time zone,
    "lockedby" character varying(128),
    "relocationflag" smallint,
    "jobexecutionid" bigint,
    "vo" character varying(32),
    "pilottiming" character varying(100),
    "workinggroup" character varying(20),
    "processingtype" character varying(64),
    "jobparameters" text,
    "metadata" text,
    "produsername" character varying(60),
    "ninputfiles" integer,
    "countrygroup" character varying(20),
    "batchid" character varying(80),
    "parentid" bigint,
    "specialhandling" character varying(80),
    "jobsetid" bigint,
    "corecount" smallint,
    "ninputdatafiles" integer,
    "inputfiletype" character varying(32),
    "inputfileproject" character varying(64),
    "inputfilebytes" bigint,
    "noutputdatafiles" integer,
    "outputfilebytes" bigint,
    "jobmetrics" character varying(500),
    "workqueue_id" integer,
    "jeditaskid" bigint,
    "jobsubstatus" character varying(80),
    "actualcorecount" integer,
    "reqid" integer,
    "maxrss" bigint,
    "maxvmem" bigint,
    "maxswap" bigint,
    "maxpss" bigint,
    "avgrss" bigint,
    "avgvmem" bigint,
    "avgswap" bigint,
    "avgpss" bigint,
    "maxwalltime" bigint,
    "nucleus" character varying(52),
    "eventservice" smallint,
    "failedattempt" smallint,
    "hs06sec" bigint,
    "gshare" character varying(32),
    "hs06" bigint,
    "totrchar" bigint,
    "totwchar" bigint,
    "totrbytes" bigint,
    "totwbytes" bigint,
    "raterchar" bigint,
    "ratewchar" bigint,
    "raterbytes" bigint,
    "ratewbytes" bigint,
    "resource_type" character varying(56),
    "diskio" integer,
    "memory_leak" bigint,
    "memory_leak_x2" numeric(14,3),
    "container_name" character varying(200),
    "job_label" character varying(20),
    "meancorecount" numeric(8,2),
    "gco2_regional" numeric(10,2),
    "gco2_global" numeric(10,2),
    "cpu_architecture_level" character varying(20),
    "outputfiletype" character varying(32)
);

CREATE TABLE doma_pandaarch."metatable_arch" (
    "pandaid" bigint,
    "modificationtime" timestamp without time zone,
    "metadata" text
);

CREATE TABLE doma_pandaarch."pandaids_modiftime_errlog_old" (
    "ora_err_number$" bigint,
    "ora_err_mesg$" character varying(2000),
    "ora_err_rowid$" oid,
    "ora_err_optyp$" character varying(2),
    "ora_err_tag$" character varying(2000),
    "pandaid" character varying(4000),
    "modiftime" character varying(4000)
);

CREATE TABLE doma_pandaarch."pandaids_modiftime_old" (
    "pandaid" bigint NOT NULL,
    "modiftime" timestamp without time zone NOT NULL,
    PRIMARY KEY ("pandaid", "modiftime")
);

CREATE TABLE doma_pandaarch."table_part_boundaries" (
    "tab_name" character varying(30) NOT NULL,
    "part_name" character varying(30) NOT NULL,
    "part_position" bigint,
    "part_boundary_dictionary" text,
    "part_boundary" timestamp without time zone,
    "last_created_view" character varying(30),
    PRIMARY KEY ("tab_name", "part_name")
);

CREATE TABLE doma_pandabigmon."all_requests" (
    "id" bigint,
    "server" character varying(100),
    "remote" character varying(100),
    "qtime" timestamp without time zone,
    "url" character varying(2500),
    "referrer" character varying(4000),
    "useragent" character varying(400),
    "is_rejected" smallint,
    "urlview" character varying(300)
);

CREATE TABLE doma_pandabigmon."all_requests_daily" (
    "qtime" timestamp without time zone,
    "remote" character varying(100),
    "is_rejected" smallint,
    "server" character varying(100),
    "urlview" character varying(300),
    "url" character varying(2500),
    "referrer" character varying(4000),
    "useragent" character varying(400),
    "rtime" timestamp without time zone,
    "load" numeric(10,2),
    "mem" numeric(10,2),
    "dbactivesess" integer,
    "dbtotalsess" integer,
    "id" bigint
);

CREATE TABLE doma_pandabigmon."auth_group" (
    "id" bigint NOT NULL,
    "name" character varying(80),
    PRIMARY KEY ("id")
);

CREATE TABLE doma_pandabigmon."auth_group_permissions" (
    "id" bigint NOT NULL,
    "group_id" bigint,
    "permission_id" bigint,
    PRIMARY KEY ("id")
);

CREATE TABLE doma_pandabigmon."auth_permission" (
    "id" integer,
    "name" character varying(255),
    "content_type_id" integer,
    "codename" character varying(100)
);

CREATE TABLE doma_pandabigmon."auth_user" (
    "id" bigint NOT NULL,
    "password" character varying(128),
    "last_login" timestamp without time zone,
    "is_superuser" boolean,
    "username" character varying(50),
    "first_name" character varying(100),
    "last_name" character varying(100),
    "email" character varying(100),
    "is_staff" boolean,
    "is_active" boolean,
    "date_joined" timestamp without time zone,
    "is_tester" boolean,
    "is_expert" boolean,
    PRIMARY KEY ("id")
);

CREATE TABLE doma_pandabigmon."auth_user_groups" (
    "id" bigint NOT NULL,
    "user_id" bigint,
    "group_id" bigint,
    PRIMARY KEY ("id")
);

CREATE TABLE doma_pandabigmon."auth_user_user_permissions" (
    "id" bigint NOT NULL,
    "user_id" bigint,
    "permission_id" bigint,
    PRIMARY KEY ("id")
);

CREATE TABLE doma_pandabigmon."authtoken_token" (
    "key" character varying(40),
    "user_id" bigint,
    "created" timestamp without time zone
);

CREATE TABLE doma_pandabigmon."django_content_type" (
    "id" integer,
    "app_label" character varying(100),
    "model" character varying(100)
);

CREATE TABLE doma_pandabigmon."django_migrations" (
    "id" bigint NOT NULL,
    "app" character varying(255),
    "name" character varying(255),
    "applied" timestamp without time zone,
    PRIMARY KEY ("id")
);

CREATE TABLE doma_pandabigmon."django_session" (
    "session_key" character varying(40) NOT NULL,
    "session_data" character varying(4000),
    "expire_date" timestamp without time zone,
    PRIMARY KEY ("session_key")
);

CREATE TABLE doma_pandabigmon."djangocache" (
    "cache_key" character varying(1000) NOT NULL,
    "expires" timestamp without time zone,
    "value" text,
    PRIMARY KEY ("cache_key")
);

CREATE TABLE doma_pandabigmon."objects_comparison" (
    "id" bigint NOT NULL,
    "userid" bigint,
    "object" character varying(20),
    "comparison_list" character varying(200),
    PRIMARY KEY ("id")
);

CREATE TABLE doma_pandabigmon."rating" (
    "ratingid" bigint NOT NULL,
    "rating" bigint,
    "userid" smallint,
    "jeditaskid" bigint,
    "feedback" character varying(4000),
    "added" timestamp without time zone,
    PRIMARY KEY ("ratingid")
);

CREATE TABLE doma_pandabigmon."request_stats" (
    "id" bigint NOT NULL,
    "server" character varying(100),
    "remote" character varying(100),
    "qtime" timestamp without time zone,
    "qduration" timestamp without time zone,
    "load" character varying(40),
    "mem" character varying(40),
    "description" character varying(4000),
    "url" character varying(2500),
    "duration" numeric(38,0),
    "referrer" character varying(4000),
    "useragent" character varying(300),
    PRIMARY KEY ("id")
);

CREATE TABLE doma_pandabigmon."rucio_accounts" (
    "certificatedn" character varying(250),
    "rucio_account" character varying(40),
    "create_time" timestamp without time zone,
    "id" numeric(38,0)
);

CREATE TABLE doma_pandabigmon."social_auth_association" (
    "id" bigint NOT NULL,
    "server_url" character varying(255),
    "handle" character varying(255),
    "secret" character varying(255),
    "issued" bigint,
    "lifetime" bigint,
    "assoc_type" character varying(64),
    PRIMARY KEY ("id")
);

CREATE TABLE doma_pandabigmon."social_auth_code" (
    "id" bigint NOT NULL,
    "email" character varying(254),
    "code" character varying(32),
    "verified" smallint,
    PRIMARY KEY ("id")
);

CREATE TABLE doma_pandabigmon."social_auth_nonce" (
    "id" bigint NOT NULL,
    "server_url" character varying(255),
    "timestamp" bigint,
    "salt" character varying(65),
    PRIMARY KEY ("id")
);

CREATE TABLE doma_pandabigmon."social_auth_partial" (
    "id" bigint NOT NULL,
    "token" character varying(32),
    "next_step" bigint,
    "backend" character varying(32),
    "data" text,
    PRIMARY KEY ("id")
);

CREATE TABLE doma_pandabigmon."social_auth_usersocialauth" (
    "id" bigint,
    "provider" character varying(32),
    "uid" character varying(255),
    "extra_data" text,
    "user_id" bigint,
    "modified" timestamp without time zone,
    "created" timestamp without time zone
);

CREATE TABLE doma_pandabigmon."tmp_ids1debug" (
    "id" bigint,
    "transactionkey" bigint,
    "ins_time" timestamp without time zone
);

CREATE TABLE doma_pandabigmon."user_settings" (
    "id" bigint NOT NULL,
    "userid" bigint,
    "page" character varying(100),
    "preferences" character varying(4000),
    PRIMARY KEY ("id")
);

CREATE TABLE doma_pandabigmon."visits" (
    "visitid" bigint NOT NULL,
    "url" character varying(1000),
    "time" timestamp without time zone,
    "service" numeric(38,0),
    "userid" numeric(38,0),
    "remote" character varying(100),
    PRIMARY KEY ("visitid")
);

CREATE TABLE doma_pandameta."agis_dump" (
    "panda_site" character varying(52),
    "update_time" timestamp without time zone,
    "json_data" text
);

CREATE TABLE doma_pandameta."auth_group" (
    "id" bigint,
    "name" character varying(80)
);

CREATE TABLE doma_pandameta."auth_group_permissions" (
    "id" bigint,
    "group_id" bigint,
    "permission_id" bigint
);

CREATE TABLE doma_pandameta."auth_user_groups" (
    "id" bigint,
    "user_id" bigint,
    "group_id" bigint
);

CREATE TABLE doma_pandameta."auth_user_user_permissions" (
    "id" bigint,
    "user_id" bigint,
    "permission_id" bigint
);

CREATE TABLE doma_pandameta."proxykey" (
    "id" bigint NOT NULL,
    "dn" character varying(100),
    "credname" character varying(40),
    "created" timestamp without time zone,
    "expires" timestamp without time zone,
    "origin" character varying(80),
    "myproxy" character varying(80),
    PRIMARY KEY ("id")
);

CREATE TABLE doma_pandameta."sitedata" (
    "site" character varying(60) NOT NULL,
    "flag" character varying(30) NOT NULL,
    "hours" integer NOT NULL,
    "nwn" integer,
    "memmin" integer,
    "memmax" integer,
    "si2000min" integer,
    "si2000max" integer,
    "os" character varying(30),
    "space" character varying(30),
    "minjobs" integer,
    "maxjobs" integer,
    "laststart" timestamp without time zone,
    "lastend" timestamp without time zone,
    "lastfail" timestamp without time zone,
    "lastpilot" timestamp without time zone,
    "lastpid" integer,
    "nstart" integer,
    "finished" integer,
    "failed" integer,
    "defined" integer,
    "assigned" integer,
    "waiting" integer,
    "activated" integer,
    "holding" integer,
    "running" integer,
    "transferring" integer,
    "getjob" integer,
    "updatejob" integer,
    "lastmod" timestamp without time zone,
    "ncpu" integer,
    "nslot" integer,
    "nojob" integer,
    "getjobabs" bigint,
    "updatejobabs" bigint,
    "nojobabs" bigint,
    PRIMARY KEY ("site", "flag", "hours")
);

CREATE TABLE doma_pandameta."usercacheusage" (
    "username" character varying(128),
    "filename" character varying(256) NOT NULL,
    "hostname" character varying(64) NOT NULL,
    "creationtime" timestamp without time zone NOT NULL,
    "modificationtime" timestamp without time zone,
    "filesize" bigint,
    "checksum" character varying(36),
    "aliasname" character varying(256),
    PRIMARY KEY ("filename", "hostname", "creationtime")
);

CREATE TABLE doma_pandameta."users" (
    "id" integer NOT NULL,
    "name" character varying(60),
    "dn" character varying(150),
    "email" character varying(60),
    "url" character varying(100),
    "location" character varying(60),
    "classa" character varying(30),
    "classp" character varying(30),
    "classxp" character varying(30),
    "sitepref" character varying(60),
    "gridpref" character varying(20),
    "queuepref" character varying(60),
    "scriptcache" character varying(100),
    "types" character varying(60),
    "sites" character varying(250),
    "njobsa" bigint,
    "njobsp" bigint,
    "njobs1" bigint,
    "njobs7" bigint,
    "njobs30" bigint,
    "cpua1" bigint,
    "cpua7" bigint,
    "cpua30" bigint,
    "cpup1" bigint,
    "cpup7" bigint,
    "cpup30" bigint,
    "cpuxp1" bigint,
    "cpuxp7" bigint,
    "cpuxp30" bigint,
    "quotaa1" bigint,
    "quotaa7" bigint,
    "quotaa30" bigint,
    "quotap1" bigint,
    "quotap7" bigint,
    "quotap30" bigint,
    "quotaxp1" bigint,
    "quotaxp7" bigint,
    "quotaxp30" bigint,
    "space1" bigint,
    "space7" bigint,
    "space30" bigint,
    "lastmod" timestamp without time zone,
    "firstjob" timestamp without time zone,
    "latestjob" timestamp without time zone,
    "pagecache" text,
    "cachetime" timestamp without time zone,
    "ncurrent" bigint,
    "jobid" bigint,
    "status" character varying(20),
    "vo" character varying(20),
    PRIMARY KEY ("id")
);

CREATE SEQUENCE doma_deft."prodsys2_task_id_seq";
CREATE SEQUENCE doma_panda."error_classification_id_seq";
CREATE SEQUENCE doma_panda."error_descriptions_id_seq";
CREATE SEQUENCE doma_panda."filestable4_row_id_seq";
CREATE SEQUENCE doma_panda."group_jobid_seq";
CREATE SEQUENCE doma_panda."harvester_command_id_seq";
CREATE SEQUENCE doma_panda."jedi_data_carousel_request_id_seq";
CREATE SEQUENCE doma_panda."jedi_dataset_cont_fileid_seq";
CREATE SEQUENCE doma_panda."jedi_datasets_id_seq";
CREATE SEQUENCE doma_panda."jedi_output_template_id_seq";
CREATE SEQUENCE doma_panda."jedi_work_queue_id_seq";
CREATE SEQUENCE doma_panda."jobsdefined4_pandaid_seq";
CREATE SEQUENCE doma_panda."retryactions_id_seq";
CREATE SEQUENCE doma_panda."retryerrors_id_seq";
CREATE SEQUENCE doma_panda."subcounter_subid_seq";
CREATE SEQUENCE doma_panda."workflow_data_id_seq";
CREATE SEQUENCE doma_panda."workflow_id_seq";
CREATE SEQUENCE doma_panda."workflow_step_id_seq";
CREATE SEQUENCE doma_pandabigmon."all_requests_daily_id_seq";
CREATE SEQUENCE doma_pandabigmon."all_requests_id_seq";
CREATE SEQUENCE doma_pandabigmon."all_requests_seq";
CREATE SEQUENCE doma_pandabigmon."auth_group_id_seq";
CREATE SEQUENCE doma_pandabigmon."auth_permission_id_seq";
CREATE SEQUENCE doma_pandabigmon."auth_user_tr_seq";
CREATE SEQUENCE doma_pandabigmon."auth_user_user_id_p_seq";
CREATE SEQUENCE doma_pandabigmon."django_content_type_id_seq";
CREATE SEQUENCE doma_pandabigmon."django_migrations_id_p_seq";
CREATE SEQUENCE doma_pandabigmon."objects_comparison_seq";
CREATE SEQUENCE doma_pandabigmon."rating_seq";
CREATE SEQUENCE doma_pandabigmon."request_stats_seq";
CREATE SEQUENCE doma_pandabigmon."rucio_accounts_seq";
CREATE SEQUENCE doma_pandabigmon."social_auth_association_sq";
CREATE SEQUENCE doma_pandabigmon."social_auth_code_sq";
CREATE SEQUENCE doma_pandabigmon."social_auth_nonce_sq";
CREATE SEQUENCE doma_pandabigmon."social_auth_partial_sq";
CREATE SEQUENCE doma_pandabigmon."social_auth_usersociala0419";
CREATE SEQUENCE doma_pandabigmon."user_settings_sq";
CREATE SEQUENCE doma_pandabigmon."visits_seq";
CREATE SEQUENCE doma_pandameta."proxykey_id_seq";
CREATE SEQUENCE doma_pandameta."users_id_seq";

INSERT INTO doma_panda.pandadb_version (component, major, minor, patch)
    VALUES ('PanDA', 0, 1, 6), ('SERVER', 0, 1, 6);

RESET ROLE;
