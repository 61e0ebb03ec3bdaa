-- A journal of schema 2, as the version before format 2 wrote it: pumps with a canary, whose third
-- round is open with two updates in it; an apply (then called plan) and a rollback wait.
PRAGMA application_id = 1414350442;
PRAGMA user_version = 2;
BEGIN TRANSACTION;
CREATE TABLE boards (
    board TEXT PRIMARY KEY, up INTEGER NOT NULL, up_reported INTEGER NOT NULL,
    down INTEGER NOT NULL, down_reported INTEGER NOT NULL, heard INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO "boards" VALUES('pump-1',1000,1000,1400,1400,1);
INSERT INTO "boards" VALUES('pump-2',1000,1000,1400,1400,1);
INSERT INTO "boards" VALUES('pump-3',1000,1000,1400,1400,1);
CREATE TABLE cohorts (
    lineage INTEGER NOT NULL, round INTEGER NOT NULL, asked_below INTEGER NOT NULL,
    chosen BLOB NOT NULL, asked TEXT NOT NULL, empty_deadlines INTEGER NOT NULL,
    trial INTEGER NOT NULL, share INTEGER NOT NULL, PRIMARY KEY (lineage, round)
) WITHOUT ROWID;
INSERT INTO "cohorts" VALUES(1,0,4294967296,X'','["pump-1", "pump-2", "pump-3"]',0,0,0);
INSERT INTO "cohorts" VALUES(1,1,4294967296,X'','["pump-1", "pump-2", "pump-3"]',0,1,2147483648);
INSERT INTO "cohorts" VALUES(1,2,4294967296,X'','["pump-1", "pump-2", "pump-3"]',0,2,2147483648);
CREATE TABLE commands (id INTEGER PRIMARY KEY, command TEXT NOT NULL);
INSERT INTO "commands" VALUES(1,'{"id": "next", "command": "plan", "spec": "\nfleet = \"pumps\"\nseed = 7\n\n[model]\ninputs = 1\nloss = \"mse\"\n\n[[model.layers]]\noutputs = 3\nactivation = \"relu\"\n\n[[model.layers]]\noutputs = 1\nactivation = \"none\"\nlocal = true\n\n[training]\nsupport = 2\nquery = 2\nrate_local = 0.02\nrate_global = 0.02\npercent = 100\n\n[rounds]\ncount = 10\ncohort = 3\ndeadline = 30\nstep_max = 0.5\npercent_down = 100\n\n[rounds.canary]\nshare = 0.5\ntolerance = 0.1\n"}');
INSERT INTO "commands" VALUES(2,'{"id": "back", "command": "rollback", "version": 1}');
CREATE TABLE lineages (
    id INTEGER PRIMARY KEY, fleet TEXT NOT NULL, identity INTEGER NOT NULL, life INTEGER NOT NULL,
    opened INTEGER NOT NULL, state TEXT NOT NULL, round INTEGER NOT NULL, file TEXT NOT NULL
);
INSERT INTO "lineages" VALUES(1,'pumps',1296929116,1393605293,1,'gathering',2,'{"fleet":"pumps","seed":7,"heap":141312,"model":{"inputs":1,"loss":"mse","layers":[{"activation":"relu","local":false,"kind":"dense","outputs":3},{"activation":"none","local":true,"kind":"dense","outputs":1}]},"training":{"support":2,"query":2,"rate_local":0.02,"rate_global":0.02,"percent":100.0,"clip":16.0,"value_bits":8,"error_feedback":false},"rounds":{"count":10,"mode":"synchronous","cohort":3,"choose":"sampling","extra":0.0,"quorum":null,"max_age":8,"discount":0.5,"deadline":30.0,"step_max":1.0,"step_min":0.0,"percent_down":100.0,"canary":{"share":0.5,"tolerance":0.1},"combine":{"rule":"mean","trim":null,"byzantine":null,"keep":null,"clip_norm":null},"optimizer":{"rule":"step","momentum":0.9,"beta1":0.9,"beta2":0.99,"tau":0.001},"privacy":null}}');
CREATE TABLE plans (
    lineage INTEGER NOT NULL, version INTEGER NOT NULL, spec TEXT NOT NULL,
    PRIMARY KEY (lineage, version)
) WITHOUT ROWID;
INSERT INTO "plans" VALUES(1,0,'{"fleet":"pumps","seed":7,"heap":141312,"model":{"inputs":1,"loss":"mse","layers":[{"activation":"relu","local":false,"kind":"dense","outputs":3},{"activation":"none","local":true,"kind":"dense","outputs":1}]},"training":{"support":2,"query":2,"rate_local":0.02,"rate_global":0.02,"percent":100.0,"clip":16.0,"value_bits":8,"error_feedback":false},"rounds":{"count":10,"mode":"synchronous","cohort":3,"choose":"sampling","extra":0.0,"quorum":null,"max_age":8,"discount":0.5,"deadline":30.0,"step_max":1.0,"step_min":0.0,"percent_down":100.0,"canary":{"share":0.5,"tolerance":0.1},"combine":{"rule":"mean","trim":null,"byzantine":null,"keep":null,"clip_norm":null},"optimizer":{"rule":"step","momentum":0.9,"beta1":0.9,"beta2":0.99,"tau":0.001},"privacy":null}}');
CREATE TABLE updates (
    lineage INTEGER NOT NULL, round INTEGER NOT NULL, board TEXT NOT NULL,
    counted INTEGER NOT NULL, nonce INTEGER NOT NULL, digest BLOB NOT NULL, payload BLOB NOT NULL,
    PRIMARY KEY (lineage, round, board)
);
INSERT INTO "updates" VALUES(1,0,'pump-1',0,1000,X'94FB5323694F6A2F7765BC9341DD2ADB',X'9F01CE96EA91BC00A670756D702D31CD03E80202CD2328CD0FA000CD01F4CD02BC28CDEA60C40A50060002FC022644BACB');
INSERT INTO "updates" VALUES(1,0,'pump-2',0,1000,X'78656AE5253B4B174DD2562AD4307306',X'9F01CE96EA91BC00A670756D702D32CD03E80202CD2328CD0FA000CD01F4CD02BC28CDEA60C40A5006000165B88BC4E65E');
INSERT INTO "updates" VALUES(1,0,'pump-3',0,1000,X'7ED0A17051647EDD885D8D7B84B10BDD',X'9F01CE96EA91BC00A670756D702D33CD03E80202CD2328CD0FA000CD01F4CD02BC28CDEA60C40A500600015D84A0B1A05A');
INSERT INTO "updates" VALUES(1,1,'pump-1',1,1001,X'BA1FA261E722E4D6526198D11767BEBF',X'9F01CE96EA91BC01A670756D702D31CD03E90202CD2328CD0FA000CD03E8CD057828CDEA60C40A50060001929159001B1E');
INSERT INTO "updates" VALUES(1,1,'pump-2',1,1001,X'A8993B070DDDDB40D0BF725854245391',X'9F01CE96EA91BC01A670756D702D32CD03E90202CD2328CD0FA000CD03E8CD057828CDEA60C40A5006000211DB4743BFD1');
INSERT INTO "updates" VALUES(1,1,'pump-3',1,1001,X'76ADC2FF71C98E95FFB0E8F58B1ACCB4',X'9F01CE96EA91BC01A670756D702D33CD03E90202CD2328CE00015F9000CD03E8CD057828CDEA60C40A500600023B373035BF2F');
INSERT INTO "updates" VALUES(1,2,'pump-1',2,1002,X'33102A2BDA04A1E0E2F28210FEBB07A5',X'9F01CE96EA91BC02A670756D702D31CD03EA0202CD2328CD0FA000CD05DCCD083428CDEA60C40A50060001C454DE20F63F');
INSERT INTO "updates" VALUES(1,2,'pump-2',2,1002,X'947B15B5A9AC9D3E99543CD644D134CC',X'9F01CE96EA91BC02A670756D702D32CD03EA0202CD2328CD0FA000CD05DCCD083428CDEA60C40A5006000229EC18D343C2');
CREATE TABLE versions (
    lineage INTEGER NOT NULL, version INTEGER NOT NULL, made TEXT NOT NULL, origin TEXT NOT NULL,
    role TEXT NOT NULL, facts TEXT, cohort TEXT, published BLOB, fine BLOB, optimizer BLOB,
    delta BLOB,
    PRIMARY KEY (lineage, version)
);
INSERT INTO "versions" VALUES(1,0,'2026-11-28T12:35:44+00:00','start','stable',NULL,NULL,X'789CABFDC2C3B9F1F7EA8FEEBF6F7001002C1006F3',X'000000000006A7C0000000000018A24000000000003C91C00000000000AAACC00000000000E492C00000000000B0A540',X'7374657000',X'');
INSERT INTO "versions" VALUES(1,1,'2026-11-28T12:35:44+00:00','round 0','taken back','{"round": 0, "loss": 0.48828125, "support_loss": 1.0986328125, "accuracy": null, "accepted": 3, "late": 0, "asked": 3, "seconds": 1.0, "trial": null, "loss_on_trial": null, "step": 1.0, "empty_deadlines": 0, "refused": {"stale": 0}, "degraded": false, "note": "", "noise": null, "epsilon": null}','["pump-1", "pump-2", "pump-3"]',X'789CFBF9A58723FCF7CA8F337FF170030033A90718',NULL,NULL,NULL);
INSERT INTO "versions" VALUES(1,2,'2026-11-28T12:35:44+00:00','round 1','trial','{"round": 1, "loss": 3.9876302083333335, "support_loss": 1.0986328125, "accuracy": null, "accepted": 3, "late": 0, "asked": 3, "seconds": 1.0, "trial": "taken back", "loss_on_trial": 10.986328125, "step": 0.9755282581475768, "empty_deadlines": 0, "refused": {"stale": 1}, "degraded": false, "note": "", "noise": null, "epsilon": null}','["pump-1", "pump-2", "pump-3"]',X'789C33FE12C131F98FFEA7C7BF6671010029AC06B9',X'4AC26DC1479AA7C0F59CA0F60DAFA040EAAA9349396D8BC0DC510FF58EA4ABC0E3079CEAEA7594C05677D9E32133A540',X'7374657000',X'');
CREATE INDEX counted ON updates (lineage, counted);
COMMIT;
