//! Shows that the bindings lay out every struct of verbs and rdma_cm that we touch as the C headers do: a C program
//! built from the system's own headers prints sizes and offsets, and they are compared.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use rdma_sys::*;
use std::fmt::Write;
use std::mem::{offset_of, size_of};
use std::process::Command;

/// A number as C says it, and as the bindings say it.
type Line = (String, usize);

macro_rules! fields {
    ($lines:ident, $kind:literal $name:ident, $($field:ident),* $(; $($c:literal => $rust:expr),*)?) => {
        let c = concat!($kind, stringify!($name));
        $lines.push((format!("sizeof({c})"), size_of::<$name>()));
        $($lines.push((format!("offsetof({c}, {})", stringify!($field)), offset_of!($name, $field)));)*
        $($($lines.push((format!("offsetof({c}, {})", $c), $rust));)*)?
    };
}

fn numbers() -> Vec<Line> {
    let mut lines = Vec::new();
    fields!(lines, "struct " ibv_sge, addr, length, lkey);
    fields!(lines, "struct " ibv_recv_wr, wr_id, next, sg_list, num_sge);
    fields!(lines, "struct " ibv_send_wr, wr_id, next, sg_list, num_sge, opcode, send_flags, wr, qp_type;
        "imm_data" => offset_of!(ibv_send_wr, imm_data_invalidated_rkey_union),
        "wr.rdma.remote_addr" => offset_of!(ibv_send_wr, wr) + offset_of!(rdma_t, remote_addr),
        "wr.rdma.rkey" => offset_of!(ibv_send_wr, wr) + offset_of!(rdma_t, rkey),
        "bind_mw" => offset_of!(ibv_send_wr, bind_mw_tso_union));
    fields!(lines, "struct " ibv_wc, wr_id, status, opcode, vendor_err, byte_len, qp_num, src_qp, wc_flags,
        pkey_index, slid, sl, dlid_path_bits;
        "imm_data" => offset_of!(ibv_wc, imm_data_invalidated_rkey_union));
    fields!(lines, "struct " ibv_qp_cap, max_send_wr, max_recv_wr, max_send_sge, max_recv_sge, max_inline_data);
    fields!(lines, "struct " ibv_qp_init_attr, qp_context, send_cq, recv_cq, srq, cap, qp_type, sq_sig_all);
    fields!(lines, "struct " ibv_qp_attr, qp_state, cur_qp_state, path_mtu, rq_psn, sq_psn, dest_qp_num,
        qp_access_flags, cap, ah_attr, pkey_index, max_rd_atomic, max_dest_rd_atomic, min_rnr_timer, port_num, timeout,
        retry_cnt, rnr_retry);
    fields!(lines, "struct " ibv_device, transport_type, name);
    fields!(lines, "struct " ibv_srq_attr, max_wr, max_sge, srq_limit);
    fields!(lines, "struct " ibv_srq_init_attr, srq_context, attr);
    fields!(lines, "struct " ibv_mr, context, pd, addr, length, handle, lkey, rkey);
    fields!(lines, "struct " ibv_pd, context, handle);
    fields!(lines, "struct " ibv_cq, context, channel, cq_context, handle, cqe);
    fields!(lines, "struct " ibv_srq, context, srq_context, pd, handle);
    fields!(lines, "struct " ibv_qp, context, qp_context, pd, send_cq, recv_cq, srq, handle, qp_num, state, qp_type);
    fields!(lines, "struct " ibv_comp_channel, context, fd, refcnt);
    fields!(lines, "struct " ibv_context, device, ops, cmd_fd, async_fd, num_comp_vectors, mutex, abi_compat);
    fields!(lines, "struct " ibv_context_ops, poll_cq, req_notify_cq, post_srq_recv, post_send, post_recv);
    fields!(lines, "struct " ibv_async_event, element, event_type);
    fields!(lines, "struct " ibv_device_attr, fw_ver, node_guid, max_qp_wr, max_sge, max_sge_rd, max_cqe,
        max_qp_rd_atom, max_qp_init_rd_atom, max_srq, max_srq_wr, phys_port_cnt);
    fields!(lines, "struct " ibv_port_attr, state, max_mtu, active_mtu, gid_tbl_len, max_msg_sz, active_width,
        active_speed, phys_state, link_layer);
    // It grows at its end, and the library is told the length that we have.
    lines.retain(|(expression, _)| expression != "sizeof(struct ibv_port_attr)");
    fields!(lines, "struct " rdma_event_channel, fd);
    fields!(lines, "struct " rdma_cm_id, verbs, channel, context, qp, route, ps, port_num, event, srq, pd, qp_type;
        "route.addr.src_storage" => offset_of!(rdma_cm_id, route) + offset_of!(rdma_route, addr)
            + offset_of!(rdma_addr, src_addr_union),
        "route.addr.dst_storage" => offset_of!(rdma_cm_id, route) + offset_of!(rdma_route, addr)
            + offset_of!(rdma_addr, dst_addr_union));
    fields!(lines, "struct " rdma_conn_param, private_data, private_data_len, responder_resources, initiator_depth,
        flow_control, retry_count, rnr_retry_count, srq, qp_num);
    fields!(lines, "struct " rdma_cm_event, id, listen_id, event, status, param);
    let mut value = |name: &str, value: i64| lines.push((name.to_owned(), usize::try_from(value).unwrap()));
    value("IBV_WR_SEND", ibv_wr_opcode::IBV_WR_SEND.into());
    value("IBV_WR_RDMA_WRITE", ibv_wr_opcode::IBV_WR_RDMA_WRITE.into());
    value("IBV_WR_RDMA_READ", ibv_wr_opcode::IBV_WR_RDMA_READ.into());
    value("IBV_SEND_SIGNALED", ibv_send_flags::IBV_SEND_SIGNALED.0.into());
    value("IBV_SEND_INLINE", ibv_send_flags::IBV_SEND_INLINE.0.into());
    value("IBV_ACCESS_LOCAL_WRITE", ibv_access_flags::IBV_ACCESS_LOCAL_WRITE.0.into());
    value("IBV_ACCESS_REMOTE_READ", ibv_access_flags::IBV_ACCESS_REMOTE_READ.0.into());
    value("IBV_ACCESS_REMOTE_WRITE", ibv_access_flags::IBV_ACCESS_REMOTE_WRITE.0.into());
    value("IBV_QPT_RC", ibv_qp_type::IBV_QPT_RC.into());
    value("IBV_QPS_ERR", ibv_qp_state::IBV_QPS_ERR.into());
    value("IBV_QP_STATE", ibv_qp_attr_mask::IBV_QP_STATE.0.into());
    value("IBV_WC_RETRY_EXC_ERR", ibv_wc_status::IBV_WC_RETRY_EXC_ERR.into());
    value("IBV_WC_WR_FLUSH_ERR", ibv_wc_status::IBV_WC_WR_FLUSH_ERR.into());
    value("IBV_EVENT_PORT_ERR", ibv_event_type::IBV_EVENT_PORT_ERR as i64);
    value("IBV_EVENT_DEVICE_FATAL", ibv_event_type::IBV_EVENT_DEVICE_FATAL as i64);
    value("RDMA_PS_TCP", rdma_port_space::RDMA_PS_TCP.into());
    value("RDMA_CM_EVENT_DEVICE_REMOVAL", rdma_cm_event_type::RDMA_CM_EVENT_DEVICE_REMOVAL.into());
    value("RDMA_CM_EVENT_ADDR_CHANGE", rdma_cm_event_type::RDMA_CM_EVENT_ADDR_CHANGE.into());
    value("RDMA_OPTION_ID_ACK_TIMEOUT", super::cm::OPTION_ID_ACK_TIMEOUT.into());
    lines
}

#[test]
fn structs_are_laid_out_as_in_the_c_headers() {
    let numbers = numbers();
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("layout.c");
    let mut text = String::from(
        "#include <stdio.h>\n#include <stddef.h>\n#include <infiniband/verbs.h>\n#include <rdma/rdma_cma.h>\n\
         int main(void) {\n",
    );
    for (expression, _) in &numbers {
        writeln!(text, "\tprintf(\"%zu\\n\", (size_t)({expression}));").unwrap();
    }
    text.push_str("\treturn 0;\n}\n");
    std::fs::write(&source, text).unwrap();
    let program = folder.path().join("layout");
    let built = match Command::new("cc").arg("-o").arg(&program).arg(&source).output() {
        Ok(built) => built,
        Err(cause) => return println!("SKIPPED: no C compiler ({cause})"),
    };
    let errors = String::from_utf8_lossy(&built.stderr);
    if errors.contains("No such file") {
        return println!("SKIPPED: no C headers of verbs (packages libibverbs-dev and librdmacm-dev)");
    }
    assert!(built.status.success(), "{errors}");
    let printed = String::from_utf8(Command::new(&program).output().unwrap().stdout).unwrap();
    let wrong: Vec<String> = numbers
        .iter()
        .zip(printed.lines())
        .filter(|((_, ours), theirs)| ours.to_string() != *theirs)
        .map(|((expression, ours), theirs)| format!("{expression}: {theirs} in C, {ours} in the bindings"))
        .collect();
    assert_eq!(printed.lines().count(), numbers.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
